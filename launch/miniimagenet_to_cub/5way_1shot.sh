#!/usr/bin/env bash
# From mini-ImageNet to CUB, 5-way 1-shot: trains on the first and tests the best
# checkpoint on the test classes of both, with calibration:
#   bash launch/miniimagenet_to_cub/5way_1shot.sh LEARNER [FLAGS of the training]
# launch/common.sh lists the learners and the variables that it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_across miniimagenet cub test 5 1 "$@"

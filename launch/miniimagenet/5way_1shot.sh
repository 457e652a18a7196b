#!/usr/bin/env bash
# mini-ImageNet, 5-way 1-shot, with an evaluator alongside the training:
#   bash launch/miniimagenet/5way_1shot.sh LEARNER [FLAGS of the training]
# launch/common.sh lists the learners and the variables that it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting miniimagenet 5 1 "$@"

#!/usr/bin/env bash
# tieredImageNet, 5-way 5-shot, with an evaluator alongside the training:
#   bash launch/tieredimagenet/5way_5shot.sh LEARNER [FLAGS of the training]
# launch/common.sh lists the learners and the variables that it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting tieredimagenet 5 5 "$@"

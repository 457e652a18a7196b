#!/usr/bin/env bash
# Omniglot, 5-way 10-shot, with an evaluator alongside the training:
#   bash launch/omniglot/5way_10shot.sh LEARNER [FLAGS of the training]
# launch/common.sh lists the learners and the variables that it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting omniglot 5 10 "$@"

#!/usr/bin/env bash
# Omniglot, 20-way 5-shot, with the evaluator beside the training:
#   bash launch/omniglot/20way_5shot.sh LEARNER [FLAGS of the training]
# launch/common.sh says which learners there are and what variables it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting omniglot 20 5 "$@"

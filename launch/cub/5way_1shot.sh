#!/usr/bin/env bash
# CUB, 5-way 1-shot, with the evaluator beside the training:
#   bash launch/cub/5way_1shot.sh LEARNER [FLAGS of the training]
# launch/common.sh says which learners there are and what variables it reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting cub 5 1 "$@"

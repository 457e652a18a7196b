#!/usr/bin/env bash
# Sequences of 5 tasks of 5-way 1-shot on Omniglot for the continual
# HyperTransformer, with an evaluator alongside the training:
#   bash launch/omniglot/5tasks_5way_1shot.sh continual [FLAGS of the training]
# Baselines: --config.learner.kind=reset, constant or merged.
learners=continual
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_setting omniglot 5 1 "$@"

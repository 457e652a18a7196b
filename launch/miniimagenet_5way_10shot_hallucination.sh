#!/usr/bin/env bash
# Prototypical network with data hallucination on mini-ImageNet, 5-way 10-shot,
# with the evaluator beside. DATASET and DATA_DIR choose other data; arguments go
# to the training, for instance --config.learner.count=100.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting \
  --config="configs/hallucination.py:${DATASET:-miniimagenet},way=5,shot=10" "$@"

#!/usr/bin/env bash
# Prototypical network on mini-ImageNet, 5-way 10-shot,
# with the evaluator beside. DATASET and DATA_DIR choose other data; arguments go
# to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting \
  --config="configs/protonet.py:${DATASET:-miniimagenet},way=5,shot=10" "$@"

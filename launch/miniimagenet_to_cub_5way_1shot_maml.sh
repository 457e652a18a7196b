#!/usr/bin/env bash
# MAML from mini-ImageNet to CUB, 5-way 1-shot: trains on the first and tests
# the best checkpoint on the test classes of both, with calibration. METHOD chooses fomaml,
# anil, metasgd or mamlpp instead.
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_across cub test \
  --config="configs/maml.py:${METHOD:-maml},${DATASET:-miniimagenet},way=5,shot=1" "$@"

#!/usr/bin/env bash
# HyperMAML on Omniglot, 20-way 1-shot, with the evaluator beside.
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting \
  --config="configs/hypermaml.py:${DATASET:-omniglot},way=20,shot=1" "$@"

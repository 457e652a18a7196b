#!/usr/bin/env bash
# MAML on Omniglot, 20-way 5-shot, with the evaluator beside. METHOD chooses fomaml,
# anil, metasgd or mamlpp instead.
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting \
  --config="configs/maml.py:${METHOD:-maml},${DATASET:-omniglot},way=20,shot=5" "$@"

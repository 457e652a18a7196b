#!/usr/bin/env bash
# Continual HyperTransformer, 5 tasks of 5-way 1-shot on Omniglot, the evaluator
# beside. DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting --config="configs/continual.py:${DATASET:-omniglot},way=5,shot=1" "$@"

#!/usr/bin/env bash
# HyperTransformer on mini-ImageNet, 5-way 5-shot (16 channels), with the evaluator
# beside. DATASET and DATA_DIR choose other data, REFERENCE=yes the settings of the
# published trainings (4,000,000 updates by SGD); arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting --config="configs/hypertransformer.py:${REFERENCE:+reference,}${DATASET:-miniimagenet},way=5,shot=5" "$@"

#!/usr/bin/env bash
# BayesHMAML from mini-ImageNet to CUB, 5-way 1-shot: trains on the first and tests
# the best checkpoint on the test classes of both, with calibration.
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_across cub test \
  --config="configs/bayeshmaml.py:${DATASET:-miniimagenet},way=5,shot=1" "$@"
python -m hyperudl.evaluate "${best[@]}" --uncertainty --tag=samples \
  --config.learner.test_samples=100 --config.learner.average=probabilities

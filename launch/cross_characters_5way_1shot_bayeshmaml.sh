#!/usr/bin/env bash
# BayesHMAML across character sets, 5-way 1-shot: trains on Omniglot and tests the
# best checkpoint on all classes of TARGET (mnist; emnist if you converted it),
# with calibration and classes outside of the support.
# omniglot_background, converted with configs/splits/omniglot_background.txt, has
# no Latin letters among its training classes (but among those of valid, unless
# its line there says none).
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_across "${TARGET:-mnist}" all \
  --config="configs/bayeshmaml.py:${DATASET:-omniglot_background},way=5,shot=1" "$@"
python -m hyperudl.evaluate "${best[@]}" --uncertainty --tag=samples \
  --config.learner.test_samples=100 --config.learner.average=probabilities

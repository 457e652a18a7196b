#!/usr/bin/env bash
# Prototypical network with data hallucination on Omniglot, 5-way 1-shot,
# with the evaluator beside. DATASET and DATA_DIR choose other data; arguments go
# to the training, for instance --config.learner.count=100.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_setting \
  --config="configs/hallucination.py:${DATASET:-omniglot},way=5,shot=1" "$@"

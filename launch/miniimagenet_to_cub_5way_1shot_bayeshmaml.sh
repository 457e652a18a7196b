#!/usr/bin/env bash
# BayesHMAML from mini-ImageNet to CUB, 5-way 1-shot: trains on the first and tests
# the best checkpoint on the test classes of both.
# DATASET and DATA_DIR choose other data; arguments go to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run="${RUN:-runs/$(basename "$0" .sh)}"
RUN="$run" run_setting \
  --config="configs/bayeshmaml.py:${DATASET:-miniimagenet},way=5,shot=1" "$@"
best=(--workdir="$run" --once --step=best)
python -m hyperudl.evaluate "${best[@]}" --tag=best
python -m hyperudl.evaluate "${best[@]}" --dataset=cub \
  --data_dir="${DATA_DIR:-data_numpy_dir}"

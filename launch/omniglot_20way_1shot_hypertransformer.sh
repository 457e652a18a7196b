#!/usr/bin/env bash
# HyperTransformer on Omniglot, 20-way 1-shot (8 channels), with the evaluator
# beside. Arguments are passed on to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
dataset="${DATASET:-omniglot}"
run="${RUN:-runs/omniglot_20way_1shot_hypertransformer}"

python -m hyperudl.evaluate --workdir="$run" &
trap 'kill %1 2>/dev/null || true' EXIT
python -m hyperudl.train \
  --config="configs/hypertransformer.py:$dataset,way=20,shot=1" \
  --workdir="$run" --config.data.dir="${DATA_DIR:-data_numpy_dir}" "$@"
wait
python launch/table.py "$run"

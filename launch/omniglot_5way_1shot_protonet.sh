#!/usr/bin/env bash
# Prototypical network on Omniglot, 5-way 1-shot, with the evaluator beside.
# Arguments are passed on to the training.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
dataset="${DATASET:-omniglot}"
run="${RUN:-runs/omniglot_5way_1shot_protonet}"

python -m hyperudl.evaluate --workdir="$run" &
trap 'kill %1 2>/dev/null || true' EXIT
python -m hyperudl.train --config="configs/protonet.py:$dataset,way=5,shot=1" \
  --workdir="$run" --config.data.dir="${DATA_DIR:-data_numpy_dir}" "$@"
wait
python launch/table.py "$run"

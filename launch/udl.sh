#!/usr/bin/env bash
# Trains udl, 5-way 1-shot, in three stages (see configs/udl.py) and evaluates
# it; on Omniglot, unless DATASET names another set:
#   DATASET=omniglot_background DATA_DIR=/data bash launch/udl.sh
# Arguments are passed on to all three trainings.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_environment
dataset="${DATASET:-omniglot}"
flags=("$devices" --config.data.dir="$data_dir")
run="${RUN:-runs/${dataset}_5way_1shot_udl}"

python -m hyperudl.train --config="configs/vae.py:$dataset" \
  --workdir="$run-vae" --config.steps=3000 "${flags[@]}" "$@"
python -m hyperudl.train --config="configs/udl.py:base,$dataset" \
  --workdir="$run-base" --config.init_from.vae="$run-vae" "${flags[@]}" "$@"
python -m hyperudl.train --config="configs/udl.py:inner,$dataset" \
  --workdir="$run" --config.init_from.base="$run-base" "${flags[@]}" "$@"

for shift in none training heldout; do
  echo "--config.data.shift=$shift --tag=$shift"
  for source in mean other; do
    echo "--config.data.shift=$shift --config.episode.emit_from=$source" \
      "--tag=$shift-emit-$source"
  done
done | python -m hyperudl.evaluate --workdir="$run" --once "$devices" \
  --overrides=/dev/stdin
python -m experiments.summary "$run"

#!/usr/bin/env bash
# MT3 against joint training on corrupted colour images: trains both, evaluates
# them under seen and unseen corruptions and prints the table of
# docs/results/udl_tables.md. Run it again to go on where it stopped.
#   DATASET=cifar10 DATA_DIR=/data bash launch/mt3_results.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
runs="${RUN:-runs/mt3_grid}"
shifts=(none color_training color_adaptation color_heldout)
dataset="${DATASET:-cifar10}"

for name in mt3 joint; do
  workdir="$runs/$name-0"
  kind=""
  if [[ $name == joint ]]; then kind=joint,; fi
  if [[ ! -e "$workdir/DONE" ]]; then
    python -m hyperudl.train --config="configs/mt3.py:$kind$dataset" \
      --workdir="$workdir" --config.data.dir="${DATA_DIR:-data_numpy_dir}" \
      "$@" >&2
  fi
  for shift in "${shifts[@]}"; do
    tag="$shift-balanced"
    if [[ -e "$workdir/eval/$tag-test.jsonl" ]]; then continue; fi
    python -m hyperudl.evaluate --workdir="$workdir" --once --episodes=1000 \
      --config.data.shift="$shift" --tag="$tag" >&2
  done
done
python launch/udl_tables.py --runs="$runs" --split=test --variants=mt3,joint \
  --proportions=balanced --shifts="$(IFS=,; echo "${shifts[*]}")" \
  --against=joint:accuracy_unadapted

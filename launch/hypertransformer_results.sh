#!/usr/bin/env bash
# docs/results/hypertransformer_tables.md and its figures: trains and evaluates
# what is missing, then writes them. Hours on 2 cores; run it again to go on
# where it stopped.
#   DATASET=omniglot_background DATA_DIR=/data \
#     bash launch/hypertransformer_results.sh
# PAGES names parts (all by default), RUNS the folder of the runs, OUT that of
# the pages. SEEDS are those of the accuracies; the other parts have one.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
dataset="${DATASET:-omniglot}"
runs="${RUNS:-runs}"
out="${OUT:-docs/results}"
pages="${PAGES:-hypertransformer semi continual}"
text="$out/hypertransformer_tables.md"

# page NAME SEEDS: trains what is missing.
page() {
  python launch/results.py --page="$1" --seeds="$2" --dataset="$dataset" \
    --data_dir="${DATA_DIR:-data_numpy_dir}" --runs="$runs" \
    --out="$runs/$1-$dataset.md" >&2
}

# Writes all parts there are, also where the training was stopped.
assemble() {
  local each file
  for each in hypertransformer semi continual; do
    file="$runs/$each-$dataset.md"
    if [[ -f "$file" ]]; then cat "$file" && echo; fi
  done > "$text"
}

# picture KIND FILE RUN...: of the runs that have been evaluated.
picture() {
  local kind=$1 file=$2 found=
  for run in "${@:3}"; do
    if [[ -f "$run/eval/test.jsonl" ]]; then found+="${found:+,}$run"; fi
  done
  if [[ -n "$found" ]]; then
    python -m hyperudl.plots --kind="$kind" --workdir="$found" \
      --out="$out/$file" >&2
  fi
}

mkdir -p "$runs" "$out"
trap assemble EXIT
for name in $pages; do
  if [[ "$name" = hypertransformer ]]; then
    page "$name" "${SEEDS:-0,1,2}"
  else
    page "$name" 0
  fi
done
accuracies="$runs/hypertransformer/$dataset"
picture clock hypertransformer_clock.png "$accuracies"/*-20way-[0-9]
picture sequences hypertransformer_continual.png "$runs/continual/$dataset"/*-0

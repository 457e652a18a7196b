#!/usr/bin/env bash
# The tables and figures of docs/results/hypertransformer.md: trains and
# evaluates what is missing and writes them after each result. Hours on 2 cores;
# run it again to go on where it stopped.
#   DATASET=omniglot_background DATA_DIR=/data \
#     bash launch/hypertransformer_results.sh
# PAGES names parts (all by default), RUNS the folder of the runs, OUT that of
# the pages (tables/PART-DATASET.md and its records, .jsonl). RECORDED=yes does
# not train again what the records hold.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
dataset="${DATASET:-omniglot}"
runs="${RUNS:-runs}"
out="${OUT:-docs/results}"
pages="${PAGES:-hypertransformer semi continual}"

# picture KIND FILE RUN...: of the runs that have been evaluated; where records
# stand for runs it would lack these.
picture() {
  local kind=$1 file=$2 found=
  for run in "${@:3}"; do
    if [[ -f "$run/eval/test.jsonl" ]]; then found+="${found:+,}$run"; fi
  done
  if [[ -n "$found" && -z "${RECORDED:-}" ]]; then
    python -m hyperudl.plots --kind="$kind" --workdir="$found" \
      --out="$out/$file"
  fi
}

mkdir -p "$runs" "$out/tables"
for name in $pages; do
  python launch/results.py --page="$name" --dataset="$dataset" \
    --data_dir="${DATA_DIR:-data_numpy_dir}" --runs="$runs" \
    --out="$out/tables/$name-$dataset.md" ${RECORDED:+--recorded}
done
accuracies="$runs/hypertransformer/$dataset"
picture clock hypertransformer_clock.png "$accuracies"/*-20way-[0-9]
picture sequences hypertransformer_continual.png "$runs/continual/$dataset"/*-0

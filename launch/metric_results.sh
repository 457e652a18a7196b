#!/usr/bin/env bash
# The tables and figures of docs/results/metric.md: prototypical networks and
# hallucination on two data sets, trained and evaluated where it is missing.
# Hours on 2 cores; run it again to go on where it stopped.
#   DATASETS='omniglot_background cifar_fs' DATA_DIR=/data \
#     bash launch/metric_results.sh
# RUNS is the folder of the runs, OUT that of the pages (tables/metric-SET.md and
# its records, .jsonl). RECORDED=yes does not train again what the records hold.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
datasets="${DATASETS:-omniglot cifar_fs}"
runs="${RUNS:-runs}"
out="${OUT:-docs/results}"
mkdir -p "$out/tables"
for dataset in $datasets; do
  python launch/results.py --page=metric --dataset="$dataset" \
    --data_dir="${DATA_DIR:-data_numpy_dir}" --runs="$runs" \
    --out="$out/tables/metric-$dataset.md" ${RECORDED:+--recorded}
  folder="$runs/metric/$dataset"
  some=()
  for row in protonet-5way protonet-cosine-learned hallucination-10; do
    run="$folder/$row-0"
    if [[ -f "$run/eval/1shot-test.jsonl" ]]; then some+=("$run"); fi
  done
  if ((${#some[@]})); then
    python -m hyperudl.plots --kind=shots --out="$out/metric_shots_$dataset.png" \
      --workdir="$(IFS=,; echo "${some[*]}")"
  fi
  if [[ -d "$folder/hallucination-10-0" ]]; then
    python -m hyperudl.plots --kind=tsne --out="$out/metric_tsne_$dataset.png" \
      --workdir="$folder/hallucination-10-0"
  fi
done

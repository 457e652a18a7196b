#!/usr/bin/env bash
# Tables and figures of prototypical networks and hallucination on two data
# sets: trains and evaluates what is missing. Hours on 2 cores; run it again to
# go on where it stopped.
#   DATASETS='omniglot_background cifar_fs' DATA_DIR=/data \
#     bash launch/metric_results.sh
# RUNS is the folder of the runs, OUT that of the pages (tables/metric-SET.md
# and its records, .jsonl). RECORDED=yes does not train again what the records
# hold.
EXTRAS="${EXTRAS-tsne}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
datasets="${DATASETS:-omniglot cifar_fs}"
runs="${RUNS:-runs}"
out="${OUT:-docs/results}"
mkdir -p "$out/tables"
for dataset in $datasets; do
  # Tests of 20 ways need as many classes in the smallest split.
  case "$dataset" in
    cifar_fs | miniimagenet) few=protonet-20way ;;
    *) few= ;;
  esac
  python launch/results.py --page=metric --dataset="$dataset" \
    --data_dir="${DATA_DIR:-data_numpy_dir}" --runs="$runs" --without="$few" \
    --out="$out/tables/metric-$dataset.md" ${RECORDED:+--recorded}
  # Figures of the runs; where records stand for these they would be missing.
  [[ -z "${RECORDED:-}" ]] || continue
  folder="$runs/metric/$dataset" some=
  for row in protonet-20way protonet-5way protonet-cosine-learned \
    protonet-dot-learned; do
    if [[ -d "$folder/$row-0" ]]; then some+="${some:+,}$folder/$row-0"; fi
  done
  python -m hyperudl.plots --kind=shots --workdir="$some" \
    --out="$out/metric_shots_$dataset.png"
  python -m hyperudl.plots --kind=tsne --workdir="$folder/hallucination-10-0" \
    --out="$out/metric_tsne_$dataset.png"
done

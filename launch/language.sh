#!/usr/bin/env bash
# Weights from a question, all stages on the built-in glyphvqa: the encoder,
# HNET with its baselines, HVAE, HyperCLIP and HyperLDM, trained, evaluated and
# in one table. Run it again to go on where it stopped. With OUT the table, its
# records and a figure are written to OUT/tables/guidance-SET.md (.jsonl) and
# OUT/guidance_shots.png:
#   SEEDS=0,1,2 OUT=docs/results bash launch/language.sh
# RUNS is the folder of the runs; arguments go to launch/results.py, for instance
#   bash launch/language.sh --rows=contrastive,multitask,hypernet,hyperldm
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
dataset="${DATASET:-glyphvqa}"
runs="${RUNS:-runs}"
out="${OUT:-}"
python launch/results.py --page=guidance --dataset="$dataset" \
  --seeds="${SEEDS:-0}" --runs="$runs" \
  ${out:+--out="$out/tables/guidance-$dataset.md"} "$@"
folder="$runs/guidance/$dataset"
if [[ -n "$out" && -e "$folder/hypernet-0" && -e "$folder/hyperldm-0" ]]; then
  python -m hyperudl.plots --kind=shots --tag=wording \
    --workdir="$folder/hypernet-0,$folder/hyperldm-0" \
    --out="$out/guidance_shots.png"
fi

#!/usr/bin/env bash
# Networks generated from a question: trains and evaluates all stages on the
# built-in glyphvqa (the encoder, HNET with its baselines, HVAE, HyperCLIP and
# HyperLDM) and prints a table. Run it again to resume where it stopped. With
# OUT the table and its records are written to OUT/tables/guidance-glyphvqa.md
# (.jsonl), and OUT/guidance_shots.png is drawn if seed 0 of hypernet and
# hyperldm has been evaluated:
#   SEEDS=0,1,2 OUT=docs/results bash launch/language.sh
# RUNS is the folder of the runs; arguments go to experiments.run, for instance
#   bash launch/language.sh --rows=contrastive,multitask,hypernet,hyperldm
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_environment
runs="${RUNS:-runs}"
out="${OUT:-}"
python -m experiments.run guidance --dataset=glyphvqa --seeds="${SEEDS:-0}" \
  --runs="$runs" ${out:+--out="$out/tables/guidance-glyphvqa.md"} "$@"
folder="$runs/guidance/glyphvqa"
drawn="$folder/hypernet-0,$folder/hyperldm-0"
if [[ -n "$out" && -f "$folder/hypernet-0/eval/8shot-wording-test.jsonl" &&
  -f "$folder/hyperldm-0/eval/8shot-wording-test.jsonl" ]]; then
  python -m hyperudl.plots --kind=shots --tag=wording --workdir="$drawn" \
    --out="$out/guidance_shots.png"
fi

#!/usr/bin/env bash
# The whole picture of speed: docs/results/speed_tables.md. JSON lines in OUT,
# one file a program; what is there is not measured again. On an idle machine:
#   bash launch/speed.sh > docs/results/speed_tables.md
#   COMPARE=runs/speed OUT=runs/speed-new bash launch/speed.sh   (with ratios)
# LEARNERS, REPEATS and BATCHES make it smaller.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
out="${OUT:-runs/speed}"
repeats="${REPEATS:-5}"
batches="${BATCHES:-1,16}"
learners="${LEARNERS:-protonet hallucination maml hypermaml bayeshmaml
  hypertransformer continual vae udl contrastive hypernet hvae hyperclip
  hyperldm}"
mkdir -p "$out"

# once NAME COMMAND...: its lines, unless they are there.
once() {
  local file="$out/$1.jsonl" compare=()
  [[ -e "$file" ]] && return
  if [[ -e "${COMPARE:-}/$1.jsonl" ]]; then
    compare=(--compare="$COMPARE/$1.jsonl")
  fi
  "${@:2}" --repeats="$repeats" "${compare[@]}" > "$file.part"
  mv "$file.part" "$file"
}

once meta-gradient python -m hyperudl.benchmark --filter="${FILTER:-second-order}"
for name in $learners; do
  once "$name" python -m hyperudl.benchmark_learner \
    --config="configs/$name.py" --batches="$batches"
done
for name in maml protonet; do
  many=(hyperudl.benchmark_learner --config="configs/$name.py"
    --batches="${batches##*,}")
  once "$name-2devices" python -m "${many[@]}" --devices=2
  once "$name-2processes" bash launch/processes.sh 2 "${many[@]}"
done
cat <<'PAGE'
# Speed: tables

    bash launch/speed.sh > docs/results/speed_tables.md

What the rows are and what follows: [speed.md](speed.md).

PAGE
python launch/speed_table.py "$out"/*.jsonl

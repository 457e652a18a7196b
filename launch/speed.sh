#!/usr/bin/env bash
# The whole picture of speed: docs/results/speed_tables.md. JSON lines in OUT,
# one file a program; what is there is not measured again. On an idle machine:
#   bash launch/speed.sh > docs/results/speed_tables.md
#   COMPARE=runs/speed OUT=runs/speed-new bash launch/speed.sh   (with ratios)
# LEARNERS, REPEATS, BATCHES and FILTER (of the meta-gradients) make it smaller.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
out="${OUT:-runs/speed}"
repeats="${REPEATS:-5}"
batches="${BATCHES:-1,16}"
learners="${LEARNERS:-protonet hallucination maml hypermaml bayeshmaml
  hypertransformer continual vae udl udl_original:glyphs contrastive hypernet hvae hyperclip
  hyperldm hyperldm_film}"
if [[ "${COMPARE:-}" -ef "$out" ]]; then
  echo "COMPARE and OUT are both $out: name another OUT" >&2
  exit 2
fi
mkdir -p "$out"

# once NAME COMMAND...: its lines, unless they are there.
once() {
  local file="$out/$1.jsonl" compare=()
  [[ -e "$file" ]] && return
  if [[ -e "${COMPARE:-}/$1.jsonl" ]]; then
    compare=(--compare="$COMPARE/$1.jsonl")
  fi
  # Libraries print lines of their own between processes.
  "${@:2}" --repeats="$repeats" "${compare[@]}" | grep '^{' > "$file.part"
  mv "$file.part" "$file"
}

once meta-gradient python -m hyperudl.benchmark --filter="${FILTER:-second-order}"
for name in $learners; do
  config="configs/${name%%:*}.py"
  [[ "$name" != *:* ]] || config+=":${name#*:}"
  sizes="$batches"
  # A minute for sixteen of its episodes.
  [[ "$name" != udl_original* ]] || sizes=1
  once "${name%%:*}" python -m hyperudl.benchmark.learner \
    --config="$config" --batches="$sizes"
done
for name in maml protonet; do
  many=(hyperudl.benchmark.learner --config="configs/$name.py"
    --batches="${batches##*,}")
  once "$name-2devices" python -m "${many[@]}" --devices=2
  # Two processes need two GPUs, where there are any.
  gpus="$(nvidia-smi -L 2> /dev/null | wc -l || true)"
  ((gpus == 1)) ||
    once "$name-2processes" env PYTHON=python \
      bash launch/processes.sh 2 "${many[@]}"
done
cat <<'PAGE'
# Speed: tables

    bash launch/speed.sh > docs/results/speed_tables.md

What the rows are and what follows: [speed.md](speed.md).

PAGE
python launch/speed_table.py "$out"/*.jsonl

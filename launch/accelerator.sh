#!/usr/bin/env bash
# What an accelerator does: MAML with grouped convolutions and with ours against
# the number of episodes; the HyperTransformer and UDL against it and against
# updates in one dispatch. JSON lines in OUT (default: runs/accelerator).
#   OUT=runs/accelerator bash launch/accelerator.sh     (EXTRAS='': on the CPU)
# Smaller, for a trial: BATCHES=1,4 CALLS=1,2 FILTER='conv4-8 slices B=1'
EXTRAS="${EXTRAS-cuda}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
out="${OUT:-runs/accelerator}"
mkdir -p "$out"
if [[ -n "$EXTRAS" ]]; then
  python -c 'import jax; assert jax.default_backend() != "cpu"' || {
    echo "JAX finds no accelerator; EXTRAS='' measures the CPU" >&2
    exit 2
  }
fi
batches="${BATCHES:-1,16,64,256}"
calls="${CALLS:-1,8,32}"
python -m hyperudl.benchmark --suite=accelerator --filter="${FILTER:-}" \
  > "$out/maml.jsonl"
for name in maml protonet udl hypertransformer; do
  python -m hyperudl.benchmark.learner --config="configs/$name.py:glyphs" \
    --batches="$batches" --calls="$calls" > "$out/$name.jsonl"
done
for file in "$out"/*.jsonl; do
  printf '== %s\n' "$file"
  cat "$file"
done

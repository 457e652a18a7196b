#!/usr/bin/env bash
# Trains and evaluates udl from scratch, some 11 minutes on 2 idle cores: sets up
# .venv, trains the autoencoder, the hypernetwork and its unsupervised inner
# loop on the built-in glyphs, with the evaluator as a second process, and prints
# the table of results. Everything is written to runs/quickstart*; run it again
# to resume. Arguments are passed on to all three trainings, for instance
#   bash launch/quickstart.sh --config.seed=1
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_environment
started=$SECONDS
run=runs/quickstart

train() { python -m hyperudl.train "$devices" "$@"; }

say() { printf '\n== %s (%d s so far)\n' "$1" "$((SECONDS - started))"; }

say 'Stage 1 of 3: a variational autoencoder of clean images'
train --config=configs/vae.py --workdir="$run-vae" \
  --config.steps=2500 "$@"

say 'Stage 2 of 3: the hypernetwork generates CNNs (no inner steps yet)'
train --config=configs/udl.py:base --workdir="$run-base" \
  --config.steps=1600 --config.init_from.vae="$run-vae" "$@"

say 'Stage 3 of 3: unsupervised inner steps, with the evaluator beside'
python -m hyperudl.evaluate --workdir="$run" &
evaluator=$!
trap 'kill "$evaluator" 2>/dev/null || true' EXIT
train --config=configs/udl.py:inner --workdir="$run" \
  --config.steps=400 --config.eval.episodes=100 \
  --config.init_from.base="$run-base" "$@"
wait "$evaluator"

say 'Results on the test alphabets, 5-way 1-shot'
for shift in none training heldout; do
  echo "--config.data.shift=$shift --tag=$shift"
done | python -m hyperudl.evaluate --workdir="$run" --once "$devices" \
  --episodes=600 --overrides=/dev/stdin
python -m experiments.summary "$run"
echo
echo "Total: $((SECONDS - started)) s. Look at it: tensorboard --logdir runs"

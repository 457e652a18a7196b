#!/usr/bin/env bash
# docs/results/udl_tables.md: trains and evaluates what is missing, then prints
# the page. Hours on 2 cores; run it again to go on where it stopped.
#   DATASET=omniglot_background DATA_DIR=/data bash launch/udl_results.sh \
#     > docs/results/udl_tables.md
# PARTS names parts of it (all by default), RUN the folder of the runs. The last
# part, mt3, needs cifar10 in DATA_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
runs="${RUN:-runs/udl_grid}"
dataset="${DATASET:-omniglot}"
place=(--dataset="$dataset" --data_dir="${DATA_DIR:-data_numpy_dir}")
every='headline balanced others emission settings ablations glyphs layer mt3'
parts="${PARTS:-$every}"
all=none,training,adaptation,shear,final
names=default,no_vae,cluster_alone

# grid FOLDER OPTIONS...: what is missing there; its own output is progress.
grid() { python launch/udl_grid.py --runs="$1" "${place[@]}" "${@:2}" >&2; }

# tables TITLE FOLDER OPTIONS...
tables() {
  printf '## %s\n\n' "$1"
  python launch/udl_tables.py --runs="$2" "${@:3}"
}

# both TITLE FOLDER OPTIONS FOR THE GRID ... -- OPTIONS FOR THE TABLES ALONE ...
# `set` and `measure` are the grid's, whose evaluations are found by their tags.
both() {
  local title=$1 folder=$2 options=() shown=()
  shift 2
  while [[ "$1" != -- ]]; do
    options+=("$1")
    case "$1" in --variants=* | --split=* | --shifts=*) shown+=("$1") ;; esac
    shift
  done
  grid "$folder" "${options[@]}"
  tables "$title" "$folder" "${shown[@]}" "${@:2}"
}

headline() {
  both "$dataset, test classes, random proportions" "$runs" \
    --seeds=0,1,2 --variants=$names --split=test --shifts=$all -- \
    --against=default:accuracy,cluster_alone:accuracy
}

balanced() {
  both "$dataset, test classes, balanced proportions" "$runs" \
    --seeds=0,1,2 --variants=default --split=test --shifts=$all \
    --proportions=balanced -- --proportions=balanced --against=
}

# What a reader asks for, seed 0.
others() {
  local others=longer_base,tent,ttt,batch_statistics,amortised_film
  others+=,constant_film,no_emission,pca_conditioning,no_conditioning
  both "$dataset, test classes: other ways to adapt or condition" "$runs" \
    --seeds=0 --split=test --shifts=$all --variants=default,$others -- \
    --against=default:accuracy,default:accuracy_unadapted --seeds=0
  both "$dataset, test classes: HyperFast's options at test" "$runs" \
    --seeds=0 --variants=default --split=test --shifts=none,training \
    --measure=learner.ensemble=8 --measure=learner.finetune_steps=50 -- \
    --proportions=dirichlet-ensemble8-finetune_steps50 --against=
}

emission() {
  for from in mean other; do
    grid "$runs" --seeds=0,1,2 --measure=episode.emit_from=$from \
      --variants=default --split=test --shifts=none,training,shear
  done
  tables 'Weights emitted for other episodes' "$runs" --split=test \
    --variants=default --shifts=none,training,shear \
    --overrides=emit_frommean,emit_fromother
}

settings() {
  both 'Without any label (setting clusters)' "$runs-clusters" \
    --set=learner.setting=clusters --set=episode.unlabelled=12 \
    --set=episode.query=7 --set=data.shift=none \
    --variants=$names --split=test --shifts=none --
  # Five more classes among the unlabelled images, in training and test.
  both 'Semi-supervised with distractors' "$runs-distractors" \
    --set=episode.distractors=5 --variants=$names --split=test \
    --shifts=none,shear --
  # The networks of the headline meet them for the first time.
  both 'Distractors that training did not know' "$runs" \
    --measure=episode.distractors=5 --variants=$names --split=test \
    --shifts=none,shear -- --proportions=dirichlet-distractors5 --seeds=0
  # No unlabelled image: the steps see the support alone, a negative control.
  both 'Few-shot supervised, no unlabelled images' "$runs-few" \
    --set=episode.unlabelled=0 --variants=default --split=test \
    --shifts=none,shear --
}

# One factor at a time; launch/udl_grid.py has more of them.
ablations() {
  local of=default,steps_alone,no_critic,no_elbo,no_ssl,no_gate,byol,steps_1
  of+=,steps_5,constant_film,amortised_film,tent,ttt,no_emission
  of+=,pca_conditioning,no_conditioning
  both "$dataset, validation classes: ablations, seed 0, 600 episodes" \
    "$runs" --seeds=0 --split=valid --episodes=600 --variants=$of -- --seeds=0 \
    --against=default:accuracy,default:accuracy_unadapted
}

glyphs() {
  local place=(--dataset=glyphs --data_dir="${DATA_DIR:-data_numpy_dir}")
  local dataset=glyphs runs="$runs-glyphs"
  headline
}

# Norms that see each image alone, as by default before norm=domain.
layer() {
  both "norm=layer: $dataset, test classes, random proportions" "$runs-layer" \
    --set=learner.norm=layer --seeds=0,1,2 --variants=$names \
    --split=test --shifts=$all --
  both 'norm=layer: other ways to adapt' "$runs-layer" \
    --set=learner.norm=layer --seeds=0 --split=test --shifts=$all \
    --variants=default,longer_base,tent,amortised_film,constant_film -- \
    --seeds=0 --against=default:accuracy
  local of=adapt_film_transform,adapt_film_transform_critic
  both 'norm=layer: a canonicaliser, validation classes, 600 episodes' \
    "$runs-layer" --set=learner.norm=layer --seeds=0 --split=valid \
    --episodes=600 --variants=default,$of,adapt_film_transform_no_vae -- \
    --seeds=0 --against=default:accuracy
}

mt3() {
  printf '## MT3 and joint training on cifar10\n\n'
  printf '    DATASET=cifar10 DATA_DIR=... %s\n\n' \
    'bash launch/mt3_results.sh --config.steps=1500'
  RUN="$runs-mt3" DATASET=cifar10 bash launch/mt3_results.sh \
    --config.steps=1500
}

for part in $parts; do
  [[ " $every " == *" $part "* ]] || {
    echo "no part $part; there are: $every" >&2
    exit 2
  }
done
cat <<'PAGE'
# UDL: tables

    DATASET=omniglot_background DATA_DIR=... bash launch/udl_results.sh \
      > docs/results/udl_tables.md

What the columns and variants are, and what follows: [udl.md](udl.md).

PAGE
for part in $parts; do "$part"; done

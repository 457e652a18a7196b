#!/usr/bin/env bash
# The tables of docs/results/udl_tables.md: trains and evaluates what is missing,
# then prints them. Hours on 2 cores; run it again to go on where it stopped.
#   DATASET=omniglot_background DATA_DIR=/data bash launch/udl_results.sh \
#     > docs/results/udl_tables.md
# Parts to run, all by default: PARTS="headline settings ablations".
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment >&2
runs="${RUN:-runs/udl_grid}"
dataset="${DATASET:-omniglot}"
place=(--dataset="$dataset" --data_dir="${DATA_DIR:-data_numpy_dir}")
parts="${PARTS:-headline settings ablations}"
all=none,training,adaptation,shear,final

# grid FOLDER OPTIONS...: what is missing there; its own output is progress.
grid() { python launch/udl_grid.py --runs="$1" "${place[@]}" "${@:2}" >&2; }

# tables TITLE FOLDER OPTIONS...
tables() {
  printf '## %s\n\n' "$1"
  python launch/udl_tables.py --runs="$2" "${@:3}"
}

# both TITLE FOLDER OPTIONS FOR THE GRID ... -- OPTIONS FOR THE TABLES ...
both() {
  local title=$1 folder=$2 options=()
  shift 2
  while [[ "$1" != -- ]]; do options+=("$1"); shift; done
  grid "$folder" "${options[@]}"
  tables "$title" "$folder" "${@:2}"
}

if [[ " $parts " == *' headline '* ]]; then
  names=default,no_vae,cluster_alone
  grid "$runs" --seeds=0 --variants=longer_base --split=test --shifts=$all
  both "$dataset, test classes, random proportions" "$runs" \
    --seeds=0,1,2 --variants=$names --split=test --shifts=$all -- \
    --variants=$names,longer_base --split=test --shifts=$all
  both "$dataset, test classes, balanced proportions" "$runs" \
    --seeds=0,1,2 --variants=default --split=test --shifts=$all \
    --proportions=balanced -- \
    --variants=default --split=test --shifts=$all --proportions=balanced
  # What a reader asks for, one seed.
  names=tent,ttt,batch_statistics,amortised_film,constant_film
  names+=,no_emission,pca_conditioning,no_conditioning
  both "$dataset, test classes: other ways to adapt" "$runs" \
    --seeds=0 --variants=$names --split=test --shifts=$all -- \
    --variants=default,$names --split=test --shifts=$all \
    --against=default:accuracy,default:accuracy_unadapted
  both "$dataset, test classes: HyperFast's options at test" "$runs" \
    --seeds=0 --variants=default --split=test --shifts=$all \
    --measure=learner.ensemble=8 --measure=learner.finetune_steps=50 -- \
    --variants=default --split=test --shifts=$all \
    --proportions=dirichlet-ensemble8-finetune_steps50
  # The loop on networks whose norms see each image alone, or the statistics of
  # the queries themselves (transductive).
  for norm in layer batch; do
    both "norm=$norm" "$runs-$norm" \
      --set=learner.norm=$norm --variants=default,cluster_alone --seeds=0 \
      --split=test --shifts=$all -- --split=test --shifts=$all \
      --variants=default,cluster_alone --against=cluster_alone:accuracy
  done
  for from in mean other; do
    grid "$runs" --seeds=0,1,2 --measure=episode.emit_from=$from \
      --variants=default --split=test --shifts=none,training,shear
  done
  printf '## Weights emitted for other episodes\n\n'
  python launch/udl_tables.py --runs="$runs" --split=test --variants=default \
    --shifts=none,training,shear --overrides=emit_frommean,emit_fromother
fi

if [[ " $parts " == *' settings '* ]]; then
  names=default,no_vae,cluster_alone
  both 'Without any label (setting clusters)' "$runs-clusters" \
    --set=learner.setting=clusters --set=episode.unlabelled=12 \
    --set=episode.query=7 --set=data.shift=none \
    --variants=$names --split=test --shifts=none -- \
    --variants=$names --split=test --shifts=none
  # Five more classes among the unlabelled images, in training and test.
  both 'Semi-supervised with distractors' "$runs-distractors" \
    --set=episode.distractors=5 --variants=$names --split=test \
    --shifts=none,shear -- \
    --variants=$names --split=test --shifts=none,shear
  # The networks of the headline meet them for the first time.
  both 'Distractors that training did not know' "$runs" \
    --measure=episode.distractors=5 --variants=$names --split=test \
    --shifts=none,shear -- --variants=$names --split=test \
    --proportions=dirichlet-distractors5 --shifts=none,shear
  # No unlabelled image: the steps see the support alone, a negative control.
  both 'Few-shot supervised, no unlabelled images' "$runs-few" \
    --set=episode.unlabelled=0 --variants=default --split=test \
    --shifts=none,shear -- --variants=default --split=test --shifts=none,shear
fi

if [[ " $parts " == *' ablations '* ]]; then
  # One factor at a time: one seed, validation classes.
  both 'Ablations, validation classes, seed 0, 600 episodes' "$runs" \
    --seeds=0 --split=valid --episodes=600 -- --split=valid
fi

#!/usr/bin/env bash
# The tables of docs/results/udl.md: trains and evaluates what is missing, then
# prints them. Hours on 2 cores; run it again to go on where it stopped.
#   DATASET=omniglot_background DATA_DIR=/data bash launch/udl_results.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
runs="${RUN:-runs/udl_grid}"
grid=(python launch/udl_grid.py --runs="$runs" --dataset="${DATASET:-omniglot}"
  --data_dir="${DATA_DIR:-data_numpy_dir}")
headline=default,no_vae,cluster_alone
all=none,training,adaptation,shear,final

# Headline: three seeds, test alphabets, random and balanced proportions.
"${grid[@]}" --seeds=0,1,2 --variants="$headline" --split=test --shifts="$all"
"${grid[@]}" --seeds=0,1,2 --variants=default --split=test --shifts="$all" \
  --proportions=balanced
"${grid[@]}" --seeds=0 --variants=longer_base,wider_base --split=test \
  --shifts="$all"
# One factor at a time: one seed, validation alphabets.
"${grid[@]}" --seeds=0 --split=valid --episodes=600

for proportions in dirichlet balanced; do
  echo "## Test alphabets, $proportions proportions"
  echo
  python launch/udl_tables.py --runs="$runs" --split=test --shifts="$all" \
    --proportions="$proportions"
done
echo '## Ablations, validation alphabets, seed 0'
echo
python launch/udl_tables.py --runs="$runs" --split=valid

#!/usr/bin/env bash
# A training on several machines under Slurm: one task for each accelerator of
# each machine, found by JAX from Slurm's own variables.
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-task=1 launch/slurm.sh \
#     --config=configs/maml.py --workdir=/shared/runs/maml --config.batch=64
# The workdir and the data must be seen by all machines under these paths. Before
# its time is up Slurm sends SIGTERM (--signal); the run saves and is put into the
# queue again (--requeue), where the same command goes on.
#SBATCH --job-name=hyperudl
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[[ ! -f .venv/bin/activate ]] || source .venv/bin/activate
srun --kill-on-bad-exit=1 python -m hyperudl.train "$@"

#!/usr/bin/env bash
# A training on several machines under Slurm: one task for each accelerator of
# each machine, found by JAX from Slurm's own variables.
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh \
#     --config=configs/maml.py --workdir=/shared/runs/maml --config.batch=64
# Every task must see all GPUs of its machine (so no --gpus-per-task): JAX takes
# the one of the task's number. The workdir and the data must be seen by all
# machines under these paths. Two minutes before its time is up Slurm sends
# SIGTERM; the run saves within its next 10 updates and is put into the queue
# again, where the same command goes on.
#SBATCH --job-name=hyperudl
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[[ ! -f .venv/bin/activate ]] || source .venv/bin/activate
code=0
srun --kill-on-bad-exit=1 python -m hyperudl.train "$@" || code=$?
if [[ $code == 143 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"

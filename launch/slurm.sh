#!/usr/bin/env bash
# A training on several machines under Slurm, with one task for each accelerator
# of each machine; JAX finds the tasks by Slurm's own variables.
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh \
#     --config=configs/maml.py --workdir=/shared/runs/maml --config.batch=64
# Every task must see all GPUs of its machine (so no --gpus-per-task): JAX takes
# the one with the task's number. The workdir and the data must have the same
# paths on all machines. Two minutes before the time is up, Slurm sends SIGTERM;
# the run saves within its next 10 updates and is queued again, to resume from
# there.
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

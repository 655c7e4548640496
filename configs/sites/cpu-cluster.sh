# shellcheck shell=bash
# shellcheck disable=SC2034  # read by slurm/job.sh
# An example: nodes with 64 processors and no GPUs; four ranks per node keep each within its memory domain.
export SBATCH_PARTITION=batch
export SBATCH_TIMELIMIT=12:00:00
HRTEMVAE_SBATCH="--nodes=4 --ntasks-per-node=4 --cpus-per-task=16 --exclusive"
HRTEMVAE_GPUS=none
HRTEMVAE_BIND=/data
module load apptainer

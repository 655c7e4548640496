# shellcheck shell=bash
# shellcheck disable=SC2034  # read by slurm/job.sh
# An example: nodes with four GPUs; a rank for each, and a share of the processors for reading.
export SBATCH_PARTITION=gpu
export SBATCH_ACCOUNT=microscopy
export SBATCH_TIMELIMIT=4:00:00
# No --gpu-bind: every rank sees its node's four devices and takes the one of its place on the node.
HRTEMVAE_SBATCH="--nodes=2 --gpus-per-node=4 --ntasks-per-node=4 --cpus-per-task=8 --mem=0"
HRTEMVAE_GPUS=nvidia
HRTEMVAE_IMAGE=/software/hrtemvae/hrtemvae.sif
HRTEMVAE_BIND="/project /scratch"
HRTEMVAE_AT_ONCE=8

#!/bin/bash
# Train the provisional model as a Slurm job, on one node:
#
#     sbatch [options of sbatch] slurm/train.sh -o model.safetensors [options of hrtemvae_hpc.training.provisional]
#
# Started by itself, without sbatch, it submits itself with the options in HRTEMVAE_SBATCH.
#SBATCH --job-name=hrtemvae-train
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -u

# Slurm runs a copy of this file: it knows where the original is.
home=$(dirname -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")")
[ -f "$home/slurm/job.sh" ] ||
  home=$(scontrol show job "${SLURM_JOB_ID:?}" | sed -n 's|^ *Command=||; s|/slurm/train\.sh.*||p; T; q')
# shellcheck source=slurm/job.sh
. "$home/slurm/job.sh"

settings
if [ -z "${SLURM_JOB_ID:-}" ]; then
  # shellcheck disable=SC2086  # HRTEMVAE_SBATCH is a list of options
  exec sbatch --export=ALL ${HRTEMVAE_SBATCH:-} "$home/slurm/train.sh" "$@"
fi
bind_files_of "$@"
say "training on $(hostname)"
in_image python -m hrtemvae_hpc.training.provisional "$@"

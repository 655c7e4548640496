#!/bin/bash
# Convert a movie as a Slurm job, on as many nodes as requested:
#
#     sbatch [options of sbatch] slurm/convert.sh IN... -o MOVIE.h5 [other options of hrtemvae convert]
#
# At a signal before its time limit, or when a rank or node is lost, it is requeued and resumes. Started by itself,
# without sbatch, it submits itself with the options in HRTEMVAE_SBATCH.
#SBATCH --job-name=hrtemvae-convert
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --no-kill
set -u
asked= # set by a signal that comes before this script handles signals
trap 'asked=1' USR1 TERM

# Slurm runs a copy of this file: it knows where the original is.
home=$(dirname -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")")
[ -f "$home/slurm/job.sh" ] ||
  home=$(scontrol show job "${SLURM_JOB_ID:?}" | sed -n 's|^ *Command=||; s|/slurm/convert\.sh.*||p; T; q')
# shellcheck source=slurm/job.sh
. "$home/slurm/job.sh"

one_command convert "name a movie first, then options: slurm/convert.sh IN... -o MOVIE.h5 [OPTIONS]" "$@"

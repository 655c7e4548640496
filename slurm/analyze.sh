#!/bin/bash
# Analyse movies in one Slurm job, with the options of `hrtemvae analyze` for all of them:
#
#     sbatch [options of sbatch] slurm/analyze.sh MOVIE... [OPTIONS]
#
# Results appear in the folder it is submitted from. Started by itself, without sbatch, it submits itself with the
# options in HRTEMVAE_SBATCH.
#SBATCH --job-name=hrtemvae
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
  home=$(scontrol show job "${SLURM_JOB_ID:?}" | sed -n 's|^ *Command=||; s|/slurm/analyze\.sh.*||p; T; q')
# shellcheck source=slurm/job.sh
. "$home/slurm/job.sh"

settings
movies=()
while [ $# -gt 0 ] && [[ $1 != -* ]]; do
  movies+=("$1")
  shift
done
[ ${#movies[@]} -gt 0 ] || refuse "name a movie first, then options: slurm/analyze.sh MOVIE... [OPTIONS]"
if [ ${#movies[@]} -gt 1 ]; then
  for option; do
    case $option in -o* | --output*) refuse "$option: one name can't hold the results of ${#movies[@]} movies; leave it out." ;; esac
  done
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  # shellcheck disable=SC2086  # HRTEMVAE_SBATCH is a list of options
  exec sbatch --export=ALL ${HRTEMVAE_SBATCH:-} "$home/slurm/analyze.sh" "${movies[@]}" "$@"
fi

handle_signals
for_this_start "$@"
set -- "${kept[@]}"
full=${SLURM_JOB_NAME}-${SLURM_JOB_ID}.full.log
bind_files_of "${movies[@]}" "$@"
count_ranks
worst=0 unfinished=0
for movie in "${movies[@]}"; do
  if [ -n "$stopping" ]; then
    worst=3 unfinished=3
    break
  fi
  say "hrtemvae analyze $movie"
  persist hrtemvae analyze "$(realpath -ms -- "$movie")" "$@" && code=0 || code=$?
  [ "$code" -le "$worst" ] || worst=$code
  case $code in 3 | 4) unfinished=$code ;; esac
  case $code in
    0) say "done: $movie" ;;
    3) break ;;
    *) say "failed with exit code $code: $movie" ;;
  esac
done
! may_requeue "$unfinished" || requeue
exit "$worst"

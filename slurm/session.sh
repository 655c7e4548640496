#!/bin/bash
# Analyse all movies of a folder, each in its own job of a Slurm job array:
#
#     slurm/session.sh [--watch] FOLDER [-o RESULTS] [options of `hrtemvae analyze`]
#
# Run again, it submits only what is missing. With --watch it stays, and submits movies as they arrive, when their files
# have not changed for a minute (--settle SECONDS). A summary, RESULTS/session.html, follows in any case. Each job gets
# the options of sbatch in HRTEMVAE_SBATCH; HRTEMVAE_AT_ONCE jobs run at the same time.
#SBATCH --job-name=hrtemvae-session
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --no-kill
set -u

# Slurm runs a copy of this file: it knows where the original is.
home=$(dirname -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")")
[ -f "$home/slurm/job.sh" ] ||
  home=$(scontrol show job "${SLURM_JOB_ID:?}" | sed -n 's|^ *Command=||; s|/slurm/session\.sh.*||p; T; q')
# shellcheck source=slurm/job.sh
. "$home/slurm/job.sh"

# Submit what is missing.
submit() {
  local queued listed size session results movies offset numbers id ids=() common code=0
  # What is still in the queue is not submitted again.
  queued=$(squeue --me -h -r -o '%j %K' | sed -n 's/^hrtemvae-session-//p' | tr '\n' ';')
  size=$(scontrol show config | sed -n 's/^MaxArraySize *= *//p')
  listed=$(in_image hrtemvae session prepare "$@" --queued "$queued" --array-size "$size") || return
  { read -r session && IFS= read -r results && IFS= read -r movies; } <<<"$listed"
  common=(--parsable --export=ALL --chdir="$results" --output=logs/slurm.log)
  while read -r offset numbers; do
    # shellcheck disable=SC2086  # HRTEMVAE_SBATCH is a list of options
    id=$(sbatch "${common[@]}" ${HRTEMVAE_SBATCH:-} --job-name="hrtemvae-session-$session+$offset" \
      --array="$numbers%${HRTEMVAE_AT_ONCE:-4}" "$home/slurm/session.sh" --movie "$offset" "$movies") || {
      code=$?
      break
    }
    ids+=("${id%%;*}")
  done < <(tail -n +4 <<<"$listed")
  if [ ${#ids[@]} -gt 0 ]; then
    echo "submitted job array ${ids[*]}; results in $results"
    id=$(sbatch "${common[@]}" --job-name="hrtemvae-summary-$session" --dependency="afterany$(printf ':%s' "${ids[@]}")" \
      "$home/slurm/session.sh" --summary "$movies") && echo "submitted its summary ${id%%;*}" || code=$?
  elif [ "$code" = 0 ]; then
    echo "nothing to submit"
  fi
  in_image hrtemvae session status -o "$results"
  return "$code"
}

# Submit movies as they arrive, until this script is stopped.
watch() {
  local numbers new code=0 arrivals watcher
  exec {arrivals}< <(exec "${container[@]}" "$image" hrtemvae session watch "$@" --announce)
  watcher=$!
  # shellcheck disable=SC2064  # this watcher
  trap "kill $watcher 2>/dev/null" EXIT
  while read -r -u "$arrivals" numbers new; do
    say "$new"
    submit "$@" --only "$numbers" || code=$?
  done
  wait "$watcher" || code=$?
  return "$code"
}

# Movie number $1 + SLURM_ARRAY_TASK_ID of the session in this folder, whose movies are in $2.
movie() {
  local index=$(($1 + SLURM_ARRAY_TASK_ID)) words=() log again
  settings
  handle_signals
  bind_files_of "$2"
  count_ranks
  mapfile -d '' -t words < <(in_image hrtemvae session begin "$index" --ranks "$ranks")
  wait $! || exit
  if [ ${#words[@]} = 0 ]; then
    say "movie $index needs no work"
    return
  fi
  log=${words[0]}
  full=${log%.log}.full.log
  exec >>"$log" 2>&1
  bind_files_of "${words[@]:1}"
  persist "${words[@]:1}" && code=0 || code=$?
  again=()
  ! may_requeue "$code" || again=(--again)
  in_image hrtemvae session end "$index" --code "$code" "${again[@]}"
  [ ${#again[@]} = 0 ] || requeue
  exit "$code"
}

submits=submit
if [ "${1:-}" = --watch ]; then
  submits=watch
  shift
fi
case ${1:-} in
  '' | -*)
    case ${1:-} in
      --movie) movie "$2" "$3" ;;
      --summary)
        settings
        bind_files_of "$2"
        in_image hrtemvae session report
        ;;
      *) refuse "name a folder of movies first: slurm/session.sh FOLDER [-o RESULTS] [OPTIONS]" ;;
    esac
    ;;
  *)
    settings
    bind_files_of "$@"
    "$submits" "$@"
    ;;
esac

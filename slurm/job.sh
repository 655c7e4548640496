# shellcheck shell=bash
# What the Slurm scripts share: the site's settings, the image, ranks, logs, and resuming after a stop.
# A script sets `home`, the folder of the project, before it reads this file, and `full` before it launches ranks; and
# `asked`, if a signal came before handle_signals.
: "${home:?}" "${full:=}" "${asked:=}"

# A task of an array by its own number: the plain one may mean the whole array.
job=${SLURM_JOB_ID:-}
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
stopping=
shares=()
left_out=()

say() { printf '%s  %s\n' "$(date '+%F %T')" "$*"; }

refuse() {
  printf 'hrtemvae: %s\n' "$*" >&2
  exit 2
}

# The settings of this site, and the image. configs/sites/ explains each setting.
settings() {
  local site=${HRTEMVAE_SITE:-}
  [ -z "$site" ] || [ -f "$site" ] || refuse "$site: HRTEMVAE_SITE names no file; see $home/configs/sites."
  [ -n "$site" ] || [ ! -f "$home/configs/sites/site.sh" ] || site=$home/configs/sites/site.sh
  [ -z "${HRTEMVAE_IMAGE:-}" ] || HRTEMVAE_IMAGE=$(realpath -m -- "$HRTEMVAE_IMAGE")
  local name
  local -A tuned=() # by the host's modules for the host's MPI
  for name in $(compgen -e | grep -E '^(OMPI_MCA|PMIX_MCA|PRTE_MCA|UCX)_'); do
    tuned[$name]=${!name}
    unset "$name"
  done
  if [ -n "$site" ]; then
    set +u # modules read variables that are not set
    # shellcheck source=/dev/null
    . "$site"
    set -u
    HRTEMVAE_SITE=$(realpath -- "$site")
    export HRTEMVAE_SITE # for jobs that start in another folder
  fi
  for name in "${!tuned[@]}"; do
    if [ -z "${HRTEMVAE_HOST_MPI:-}" ]; then
      left_out+=("$name") # another MPI, the image's, may not start with it
    elif [ -z "${!name+set}" ]; then
      export "$name=${tuned[$name]}"
    fi
  done
  [ -z "${HRTEMVAE_SCRATCH:-}" ] || export HRTEMVAE_SCRATCH # for the program
  image=${HRTEMVAE_IMAGE:-containers/hrtemvae.sif}
  [[ $image == /* ]] || image=$home/$image
  [ -f "$image" ] || refuse "$image: there is no image; make it with \`hrtemvae image build\`, or name it in HRTEMVAE_IMAGE."
  export HRTEMVAE_IMAGE=$image
  local program
  program=$(command -v apptainer || command -v singularity) ||
    refuse "neither apptainer nor singularity is on the PATH of $(hostname); load its module in the site file."
  container=("$program" --quiet exec --pwd "$PWD")
  bound=()
  case ${HRTEMVAE_GPUS:-auto} in
    nvidia) container+=(--nv) ;;
    amd) container+=(--rocm) ;;
    none) ;;
    auto)
      [ ! -e /dev/nvidiactl ] || container+=(--nv)
      [ ! -e /dev/kfd ] || container+=(--rocm)
      ;;
    *) refuse "HRTEMVAE_GPUS=$HRTEMVAE_GPUS: choose nvidia, amd, none or auto." ;;
  esac
  bind "$PWD"
  bind "$image" # its SHA-256 goes into results
  local folder
  for folder in ${HRTEMVAE_BIND:-}; do bind "${folder%%:*}" "${folder#*:}"; done
  [ -z "${HRTEMVAE_SCRATCH:-}" ] || bind "$HRTEMVAE_SCRATCH"
  if [ -n "${HRTEMVAE_HOST_MPI:-}" ]; then
    [ -f "$HRTEMVAE_HOST_MPI" ] || refuse "$HRTEMVAE_HOST_MPI: HRTEMVAE_HOST_MPI names no library on $(hostname)."
    local libraries
    libraries=$(dirname -- "$HRTEMVAE_HOST_MPI")
    bind "$libraries"
    for folder in ${HRTEMVAE_HOST_LIBRARIES:-}; do
      bind "${folder%%:*}" "${folder#*:}"
      libraries+=:${folder#*:}
    done
    container+=(--env "MPI4PY_LIBMPI=$HRTEMVAE_HOST_MPI" --env "LD_LIBRARY_PATH=$libraries")
  fi
}

# A file or folder of the host, seen inside under the same or another name. Quotes as in CSV, for any name.
bind() {
  local place=${2:-$1} known
  for known in / "${bound[@]}"; do [ "$place" != "$known" ] || return 0; done
  bound+=("$place")
  container+=(--mount "type=bind,\"src=${1//\"/\"\"}\",\"dst=${place//\"/\"\"}\"")
}

# The folders of all files named among arguments, and those their links lead to.
bind_files_of() {
  local argument path
  for argument; do
    [[ $argument != --*=* ]] || argument=${argument#*=}
    for path in "$(realpath -ms -- "$argument")" "$(realpath -m -- "$argument")"; do
      if [ -d "$path" ]; then bind "$path"; elif [ -d "${path%/*}" ]; then bind "${path%/*}"; fi
    done
  done
}

# A command inside the image, as one process on this node.
in_image() { "${container[@]}" "$image" "$@"; }

# How many ranks this job has, on which nodes: as many as tasks were requested, else one for each GPU, else one for each
# node.
count_ranks() {
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  if [ -n "${SLURM_NTASKS:-}" ]; then
    ranks=$SLURM_NTASKS
  elif [ "${SLURM_GPUS_ON_NODE:-0}" -gt 0 ]; then
    ranks=$((${#nodes[@]} * SLURM_GPUS_ON_NODE))
  else
    ranks=${#nodes[@]}
  fi
}

# Variables that help to understand a job, by name: the environment may also hold credentials, such as SLURM_JWT.
shown=(
  SLURM_CLUSTER_NAME SLURM_JOB_ID SLURM_JOB_NAME SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT
  SLURM_JOB_PARTITION SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_NTASKS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE
  SLURM_CPUS_PER_TASK SLURM_CPUS_ON_NODE SLURM_JOB_CPUS_PER_NODE SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU
  SLURM_GPUS SLURM_GPUS_ON_NODE SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_JOB_GPUS SLURM_MPI_TYPE SLURM_SUBMIT_DIR
  HRTEMVAE_SITE HRTEMVAE_IMAGE HRTEMVAE_SCRATCH HRTEMVAE_BIND HRTEMVAE_GPUS HRTEMVAE_SRUN HRTEMVAE_REQUEUES
  HRTEMVAE_HOST_MPI HRTEMVAE_HOST_LIBRARIES HRTEMVAE_STOP HRTEMVAE_SAVED
  OMP_NUM_THREADS OMP_PLACES OMP_PROC_BIND OMPI_MCA_btl OMPI_MCA_pml OMPI_MCA_smsc PMIX_MCA_psec PMIX_MCA_gds
  PRTE_MCA_rmaps_default_mapping_policy UCX_TLS UCX_NET_DEVICES UCX_POSIX_USE_PROC_LINK MPICH_GPU_SUPPORT_ENABLED
  CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
)

# The file $full, readable by its owner alone, with the facts, settings and command of this start of the job.
begin_full_log() {
  local name
  [ ! -L "$full" ] || refuse "$full: is a link, but the log belongs there; remove it."
  { (umask 077 && : >>"$full") && chmod 600 -- "$full"; } || refuse "$full: the log can't be written."
  {
    date
    scontrol show job "$job"
    [ ${#left_out[@]} -eq 0 ] || echo "left out, as they are for the host's MPI: ${left_out[*]}"
    for name in "${shown[@]}"; do [ -z "${!name+set}" ] || printf '%s=%q\n' "$name" "${!name}"; done
    printf '%q ' "${container[@]}" "$image" "$@"
    echo
  } >>"$full"
}

# `hrtemvae ARGUMENTS` on all ranks of the job, again on the nodes that answer when a rank or node was lost: as long as
# work is saved in between, and once where none was. Returns its exit code.
persist() {
  local before idle=0
  while :; do
    before=$(saved)
    launch "$@" && return || code=$?
    [ "$code" = 4 ] && [ -z "$stopping" ] || return "$code"
    idle=$(($(saved) > before ? 0 : idle + 1))
    if [ "$idle" = 2 ]; then
      say "failed twice without saving anything new"
      return 4
    fi
    keep_nodes || return 4
    without_restart "$@"
    set -- "${kept[@]}"
    shares=(--overlap) # Slurm may still count the lost step's processors as used
    say "a rank or node was lost: starting again"
  done
}

# How much was saved in this start of the job, in parts of the work.
saved() { stat -c %s -- "$HRTEMVAE_SAVED"; }

# Keep the nodes that answer, and as many ranks as they had. Fails if none does.
keep_nodes() {
  local node probes=() left=()
  for node in "${nodes[@]}"; do
    env -u SLURM_GPUS -u SLURM_GPUS_PER_NODE -u SLURM_GPUS_PER_TASK timeout 30 \
      srun --overlap --mem=0 --gres=none --nodes=1 --ntasks=1 --nodelist="$node" true >>"$full" 2>&1 &
    probes+=($!)
  done
  for node in "${!nodes[@]}"; do
    ! wait "${probes[node]}" || left+=("${nodes[node]}")
  done
  [ ${#left[@]} -gt 0 ] || return
  ranks=$((ranks * ${#left[@]} / ${#nodes[@]}))
  [ "$ranks" -gt 0 ] || ranks=1
  if [[ ${SLURM_GPUS:-} =~ ^([^,]*:)?([0-9]+)$ ]]; then
    export SLURM_GPUS=${BASH_REMATCH[1]}$((BASH_REMATCH[2] * ${#left[@]} / ${#nodes[@]}))
  fi
  nodes=("${left[@]}")
}

# `hrtemvae ARGUMENTS` on all ranks of the job. Messages for people go to standard output, the full output of all ranks
# to the file $full. Returns its exit code. At a signal to this script, the ranks are asked to save their work and stop.
launch() {
  local cpus result logger step on
  on=$(scontrol show hostlist "$(printf '%s,' "${nodes[@]}")")
  cpus=$((SLURM_CPUS_ON_NODE * ${#nodes[@]} / ranks))
  cpus=${SLURM_CPUS_PER_TASK:-$((cpus > 0 ? cpus : 1))}
  export OMP_NUM_THREADS=$cpus HRTEMVAE_STOP HRTEMVAE_SAVED
  say "job $job on $on: $ranks ranks with $cpus CPUs each; full output of all ranks in $full"
  begin_full_log "$@"
  exec {log}> >(trap '' USR1 TERM; tee -a "$full" | lines_for_people)
  logger=$!
  # Ranks end together by themselves; --wait is for those that a lost rank leaves behind.
  # shellcheck disable=SC2086  # HRTEMVAE_SRUN is a list of options
  srun --export=ALL --nodes="${#nodes[@]}" --nodelist="$on" --ntasks="$ranks" --cpus-per-task="$cpus" "${shares[@]}" \
    ${HRTEMVAE_SRUN:---mpi=pmix} --label --kill-on-bad-exit=0 --wait=10 \
    "${container[@]}" "$image" "$@" >&"$log" 2>&1 &
  step=$!
  code=127
  while :; do
    caught=
    wait "$step" && result=0 || result=$?
    [ "$result" = 127 ] || code=$result
    [ -n "$caught" ] || break
  done
  exec {log}>&-
  wait "$logger" || :
  echo "srun ended with exit code $code" >>"$full"
  [ "$code" -le 5 ] || code=4 # srun's own, where ranks were killed or never ran
  [ "$code" != 4 ] || [ -z "$stopping" ] || code=3
  return "$code"
}

# From now on a signal to this script asks the ranks to stop.
handle_signals() {
  HRTEMVAE_STOP=$PWD/.hrtemvae-$SLURM_JOB_ID.stop
  HRTEMVAE_SAVED=$PWD/.hrtemvae-$SLURM_JOB_ID.saved
  rm -f -- "$HRTEMVAE_STOP"
  : >"$HRTEMVAE_SAVED"
  trap 'rm -f -- "$HRTEMVAE_STOP" "$HRTEMVAE_SAVED"' EXIT
  trap ask_to_stop USR1 TERM
  [ -z "$asked" ] || ask_to_stop
}

# By a file: a signal to the ranks would also reach the process that keeps the image mounted for them, and end it.
ask_to_stop() {
  [ -n "$stopping" ] || say "asked to stop: saving what is done"
  stopping=1 caught=1
  touch -- "$HRTEMVAE_STOP"
}

# From labelled lines: all of rank 0, messages of other ranks, and errors of Slurm.
lines_for_people() {
  sed -un -e 's/^ *0: //p; t' -e 's/^ *[0-9]*: \(hrtemvae: \)/\1/p; t' -e '/Exited with exit code/d; /^\(srun\|slurmstepd\)[^ ]*: error/p'
}

# Whether this job may go back to the queue after exit code $1: stopped, or failed after it saved something, with starts
# left, not cancelled.
may_requeue() {
  local attempt=${SLURM_RESTART_COUNT:-0}
  case $1 in
    3) ;;
    4) [ "$(saved)" -gt 0 ] || return ;;
    *) return 1 ;;
  esac
  if [ "$attempt" -ge "${HRTEMVAE_REQUEUES:-5}" ]; then
    say "stopped $((attempt + 1)) times, which is as often as HRTEMVAE_REQUEUES allows; submit it again to resume."
    return 1
  fi
  # Slurm ends a job at its time limit, or because someone cancelled it; only scancel gives no reason.
  case $(scontrol show job "$job" | sed -n 's/^ *JobState=\([A-Z]*\) Reason=\([^ ]*\).*/\1 \2/p') in
    "RUNNING "* | *" TimeLimit") ;;
    *)
      say "cancelled; submit it again to resume."
      return 1
      ;;
  esac
}

# The arguments of a job as they should be for this start of it, in `kept`: only the first start discards earlier work.
for_this_start() {
  if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then without_restart "$@"; else kept=("$@"); fi
}

without_restart() {
  local argument
  kept=()
  for argument; do
    [[ $argument == --rest* ]] || kept+=("$argument")
  done
}

# Put this job back into the queue.
requeue() {
  say "requeued, resumes from there (start $((${SLURM_RESTART_COUNT:-0} + 2)))"
  scontrol requeue "$job" || say "the job can't be put back into the queue; submit it again to resume."
}

# All that a script does that runs one command of the program: submit itself, or run the command in this job.
one_command() { # COMMAND USAGE ARGUMENTS...
  local command=$1 usage=$2
  shift 2
  settings
  [ $# -gt 0 ] && [[ $1 != -* ]] || refuse "$usage"
  if [ -z "${SLURM_JOB_ID:-}" ]; then
    # shellcheck disable=SC2086  # HRTEMVAE_SBATCH is a list of options
    exec sbatch --export=ALL ${HRTEMVAE_SBATCH:-} "$home/slurm/$command.sh" "$@"
  fi
  handle_signals
  for_this_start "$@"
  set -- "${kept[@]}"
  full=${SLURM_JOB_NAME}-${SLURM_JOB_ID}.full.log
  bind_files_of "$@"
  count_ranks
  persist hrtemvae "$command" "$@" && code=0 || code=$?
  [ "$code" = 0 ] || say "ended with exit code $code"
  ! may_requeue "$code" || requeue
  exit "$code"
}

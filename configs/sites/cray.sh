# shellcheck shell=bash
# shellcheck disable=SC2034  # read by slurm/job.sh
# An example: a Cray-like machine. The host's MPICH knows its network, so it is bound into the image; mpi4py takes it by
# its ABI. `srun --mpi=list` shows what the site's Slurm supports; `hrtemvae doctor` checks that it fits.
export SBATCH_ACCOUNT=microscopy
export SBATCH_CONSTRAINT=gpu
export SBATCH_TIMELIMIT=6:00:00
HRTEMVAE_SBATCH="--nodes=4 --gpus-per-node=4 --ntasks-per-node=4 --cpus-per-task=16"
HRTEMVAE_SRUN="--mpi=cray_shasta"
HRTEMVAE_GPUS=nvidia
HRTEMVAE_HOST_MPI=/opt/cray/pe/mpich/default/ofi/gnu/12.3/lib-abi-mpich/libmpi.so.12
HRTEMVAE_HOST_LIBRARIES="/opt/cray/pe/lib64 /opt/cray/libfabric/default/lib64 /opt/cray/pe/pmi/default/lib /usr/lib64:/usr/lib64/host"

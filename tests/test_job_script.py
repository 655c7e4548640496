"""Slurm jobs: what their full log contains and who may read it, and which failures start again."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

JOB_SCRIPT = Path(__file__).parents[1] / "slurm" / "job.sh"
TRAIN_SCRIPT = JOB_SCRIPT.with_name("train.sh")
SECRET = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0"
SECRETS = (
    "SLURM_JWT",
    "SLURM_JWT_KEY",
    "HRTEMVAE_TOKEN",
    "HRTEMVAE_SBATCH",
    "OMPI_MCA_secret",
    "PMIX_SECURITY_CREDENTIAL",
    "CUDA_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
)
LAUNCH = """
set -u
home=. full='a job.full.log'
. "$1"
container=(env) image=-- ranks=2 nodes=(n1 n2)
launch echo done
"""
PERSIST = """
set -u
home=. full=full.log
. "$1"
settings() { container=(apptainer) image=image.sif bound=(); }
shift
handle_signals
settings
count_ranks
persist hrtemvae analyze m.h5 --restart && code=0 || code=$?
may_requeue "$code" && echo requeues
exit "$code"
"""
SETTINGS = """
set -u
home=. HRTEMVAE_IMAGE=$2 HRTEMVAE_SITE=$3
. "$1"
settings
printf '%s\\n' "${container[@]}"
"""
SCONTROL = r"""
case $2 in
  hostnames) printf "n1\nn2\n" ;;
  hostlist) echo "$3" ;;
"""
# Each launch ends as the first line left in `ends` says: exit code and parts saved. Nodes in `lost` don't answer.
SRUN = """
case $* in
  *apptainer*)
    echo "${@#--nodelist=}" >>launches
    read -r code parts <ends
    sed -i 1d ends
    head -c "$parts" /dev/zero >>"$HRTEMVAE_SAVED"
    exit "$code"
    ;;
esac
for word; do
  case $word in --nodelist=*) ! grep -qx "${word#*=}" lost ;; esac || exit 1
done
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job in ``tmp_path``, with stand-ins for Slurm's programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (
        ("scontrol", SCONTROL + '*) echo "JobId=$3" ;; esac'),
        ("srun", 'while [ "$1" != env ]; do shift; done; "$@" | sed "s/^/0: /"'),
    ):
        program = programs / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    facts = {"JOB_ID": "7", "JOB_NODELIST": "n[1-2]", "JOB_NUM_NODES": "2", "CPUS_ON_NODE": "4"}
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HRTEMVAE_STOP": str(tmp_path / "stop"),
        "CUDA_VISIBLE_DEVICES": "0,1",
        **{f"SLURM_{name}": value for name, value in facts.items()},
        **dict.fromkeys(SECRETS, SECRET),
    }


def launch(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f"umask 022\n{LAUNCH}", "bash", str(JOB_SCRIPT)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_full_log_holds_what_helps_and_no_credential(tmp_path: Path, job: dict[str, str]) -> None:
    done = launch(tmp_path, job)
    assert done.returncode == 0, done.stderr
    full = (tmp_path / "a job.full.log").read_text()
    for line in ("JobId=7", "SLURM_JOB_NUM_NODES=2", "CUDA_VISIBLE_DEVICES=0\\,1", "OMP_NUM_THREADS=4", "0: done"):
        assert line in full.splitlines()
    for text in (full, done.stdout, done.stderr):
        assert SECRET not in text


def test_the_hosts_libraries_are_bound_under_the_names_of_the_site_file(tmp_path: Path, job: dict[str, str]) -> None:
    """configs/sites/cray.sh on a machine whose /opt/cray lies in ``tmp_path``."""
    (tmp_path / "programs" / "apptainer").touch(0o755)
    (tmp_path / "i.sif").touch()
    text = (JOB_SCRIPT.parents[1] / "configs/sites/cray.sh").read_text().replace("/opt/cray", f"{tmp_path}/cray")
    (tmp_path / "site.sh").write_text(f'{text}HRTEMVAE_BIND="/etc /usr/share:/share"\nHRTEMVAE_SCRATCH=/var/tmp\n')
    mpi = tmp_path / "cray/pe/mpich/default/ofi/gnu/12.3/lib-abi-mpich/libmpi.so.12"
    mpi.parent.mkdir(parents=True)
    mpi.touch()
    words = ["bash", "-c", SETTINGS, "bash", str(JOB_SCRIPT), str(tmp_path / "i.sif"), str(tmp_path / "site.sh")]
    done = subprocess.run(words, cwd=tmp_path, env=job, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    bound = [line.removeprefix("type=bind,") for line in printed if line.startswith("type=bind,")]
    libraries = [f"{tmp_path}/cray/{name}" for name in ("pe/lib64", "libfabric/default/lib64", "pe/pmi/default/lib")]
    same = (tmp_path, tmp_path / "i.sif", "/etc", "/var/tmp", mpi.parent, *libraries)
    other = {"/share": "/usr/share", "/usr/lib64/host": "/usr/lib64"}
    expected = {f'"src={place}","dst={place}"' for place in same}
    assert set(bound) == expected | {f'"src={source}","dst={place}"' for place, source in other.items()}
    assert len(bound) == len(set(bound))
    path = ":".join([str(mpi.parent), *libraries, "/usr/lib64/host"])
    assert f"LD_LIBRARY_PATH={path}" in printed
    assert f"MPI4PY_LIBMPI={mpi}" in printed
    assert "--nv" in printed


@pytest.mark.parametrize("host_mpi", [False, True])
def test_settings_of_the_hosts_mpi_reach_that_mpi_alone(tmp_path: Path, job: dict[str, str], host_mpi: bool) -> None:
    (tmp_path / "programs" / "apptainer").touch(0o755)
    (tmp_path / "i.sif").touch()
    (tmp_path / "libmpi.so").touch()
    mpi = f"HRTEMVAE_HOST_MPI={tmp_path}/libmpi.so\n" if host_mpi else ""
    (tmp_path / "site.sh").write_text(f"export OMPI_MCA_btl=^sm\n{mpi}")
    script = SETTINGS + "env | grep -E '^(OMPI|UCX|PMIX)_' | sort\nprintf '%s\\n' \"${left_out[@]}\" | sort"
    words = ["bash", "-c", script, "bash", str(JOB_SCRIPT), str(tmp_path / "i.sif"), str(tmp_path / "site.sh")]
    tuned = {"OMPI_MCA_pml": "ucx", "OMPI_MCA_btl": "openib", "UCX_TLS": "rc", "PMIX_RANK": "0"}
    kept = {name: value for name, value in job.items() if name not in SECRETS}
    done = subprocess.run(
        words, cwd=tmp_path, env=kept | tuned, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith(("OMPI", "UCX", "PMIX"))]
    of_the_host = ["OMPI_MCA_pml=ucx", "PMIX_RANK=0", "UCX_TLS=rc"]
    others = ["PMIX_RANK=0", "OMPI_MCA_btl", "OMPI_MCA_pml", "UCX_TLS"]
    assert printed == ["OMPI_MCA_btl=^sm", *(of_the_host if host_mpi else others)]


@pytest.mark.parametrize("before", [None, "an earlier start\n"])
def test_only_its_owner_reads_the_full_log(tmp_path: Path, job: dict[str, str], before: str | None) -> None:
    log = tmp_path / "a job.full.log"
    if before is not None:
        log.write_text(before)
        log.chmod(0o644)
    assert launch(tmp_path, job).returncode == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert log.read_text().startswith(before or "")


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, job: dict[str, str]) -> None:
    (tmp_path / "a job.full.log").mkdir()
    refused = launch(tmp_path, job)
    assert refused.returncode == 2
    assert "a job.full.log: the log can't be written." in refused.stderr


def test_a_sweep_is_passed_through_and_requeued_without_restart(tmp_path: Path, job: dict[str, str]) -> None:
    (tmp_path / "image.sif").touch()
    programs = tmp_path / "programs"
    for name, text in (
        ("apptainer", 'while [ "$1" != hrtemvae ]; do shift; done; printf "%s\\n" "$@" >arguments; exit 3'),
        ("srun", 'while [[ $1 != */apptainer ]]; do shift; done; exec "$@"'),
        (
            "scontrol",
            'echo "$@" >>scontrol.log\n' + SCONTROL + '*) echo "JobState=RUNNING Reason=None" ;; esac',
        ),
    ):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    words = ["train.yaml", "--sweep-latents", "2", "8", "--segments", "a b.h5"]
    done = subprocess.run(
        ["bash", TRAIN_SCRIPT, *words, "--restart"],
        cwd=tmp_path,
        env=job | {"HRTEMVAE_IMAGE": "image.sif", "SLURM_JOB_NAME": "train", "SLURM_RESTART_COUNT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert (tmp_path / "arguments").read_text().splitlines() == ["hrtemvae", "train", *words]
    assert "requeue 7" in (tmp_path / "scontrol.log").read_text().splitlines()


@pytest.mark.parametrize(
    ("ends", "code", "launches", "requeues"),
    [
        (["0 3"], 0, 1, False),
        (["4 1", "4 2", "4 1", "0 1"], 0, 4, False),
        (["4 0", "0 1"], 0, 2, False),
        (["4 0", "4 0"], 4, 2, False),
        (["4 1", "137 0", "4 0"], 4, 3, True),
        (["5 1"], 5, 1, False),
        (["2 0"], 2, 1, False),
        (["3 0"], 3, 1, True),
    ],
)
def test_a_failed_step_starts_again_while_work_is_saved(
    tmp_path: Path, job: dict[str, str], ends: list[str], code: int, launches: int, requeues: bool
) -> None:
    done, started = persist(tmp_path, job, ends, lost=[])
    assert done.returncode == code, done.stdout + done.stderr
    assert len(started) == launches
    assert ("requeues" in done.stdout) is requeues
    assert all(("--restart" in words) is (number == 0) for number, words in enumerate(started))
    assert all({"n1,n2,", "--nodes=2", "--ntasks=2"} < set(words) for words in started)
    assert not list(tmp_path.glob(".hrtemvae*"))


def test_a_lost_node_is_left_out(tmp_path: Path, job: dict[str, str]) -> None:
    done, started = persist(tmp_path, job | {"SLURM_NTASKS": "4", "SLURM_GPUS": "a100:4"}, ["4 1", "0 1"], lost=["n2"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"n1,n2,", "--nodes=2", "--ntasks=4"} < set(started[0])
    assert {"n1,", "--nodes=1", "--ntasks=2"} < set(started[1])
    assert "SLURM_GPUS=a100:2" in (tmp_path / "full.log").read_text().splitlines()


def test_no_step_starts_where_no_node_is_left(tmp_path: Path, job: dict[str, str]) -> None:
    done, started = persist(tmp_path, job, ["4 1"], lost=["n1", "n2"])
    assert done.returncode == 4
    assert len(started) == 1
    assert "requeues" in done.stdout


def persist(
    folder: Path, environment: dict[str, str], ends: list[str], lost: list[str]
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """A job whose launches end as listed, and the words of each launch."""
    (folder / "ends").write_text("".join(f"{line}\n" for line in ends))
    (folder / "lost").write_text("".join(f"{node}\n" for node in lost))
    (folder / "programs" / "srun").write_text(f"#!/bin/bash\n{SRUN}")
    scontrol = SCONTROL + '*) echo "JobState=RUNNING Reason=None" ;; esac'
    (folder / "programs" / "scontrol").write_text(f"#!/bin/bash\n{scontrol}\n")
    command = ["bash", "-c", PERSIST, "bash", str(JOB_SCRIPT)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done, [line.split() for line in (folder / "launches").read_text().splitlines()]

"""The doctor's findings, on real ranks."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import command_line, environment
from conftest import unavailable

from hrtemvae_hpc.movie import hdf5_check


def doctor(folder: Path, ranks: int | None = None, **variables: str) -> tuple[int, dict[str, str]]:
    done = subprocess.run(
        command_line(["doctor"], ranks),
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:1].strip()]
    return done.returncode, {line.split()[0].rstrip(":"): line for line in lines}


@pytest.mark.parametrize("ranks", [None, 2])
def test_where_all_is_well(ranks: int | None, tmp_path: Path) -> None:
    code, told = doctor(tmp_path, ranks, OMP_NUM_THREADS="2")
    assert code == 0
    looked_at = {"program", "ranks", "MPI", "devices", "threads", "driver", "memory", "/dev/shm"}
    looked_at |= {"binds", "HDF5", "results"}
    assert set(told) == looked_at | {"verdict"}
    assert f"ok       {ranks or 1} on " in told["ranks"]
    assert ("libmpi" in told["MPI"]) == bool(ranks)
    assert not list(tmp_path.iterdir())


def test_ranks_that_do_not_know_of_each_other(tmp_path: Path) -> None:
    code, told = doctor(tmp_path, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0")
    assert code == 2
    assert "WRONG" in told["ranks"]
    assert doctor(tmp_path, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3") == (2, {})


def test_a_scratch_that_is_not_there(tmp_path: Path) -> None:
    code, told = doctor(tmp_path, HRTEMVAE_SCRATCH=str(tmp_path / "none"))
    assert code == 2
    assert "WRONG" in told["scratch"]
    assert "scratch" in told["verdict"]


def test_a_folder_that_is_not_bound(tmp_path: Path) -> None:
    assert doctor(tmp_path, HRTEMVAE_BIND=f"/tmp {tmp_path}")[0] == 0
    code, told = doctor(tmp_path, HRTEMVAE_BIND=f"/tmp {tmp_path}/none")
    assert code == 2
    assert "WRONG" in told["binds"]


def test_another_pythons_packages(tmp_path: Path) -> None:
    code, told = doctor(tmp_path, PYTHONPATH=str(tmp_path))
    assert code == 0
    assert "warning" in told["program"]


def test_fewer_threads_than_processors(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        unavailable("this machine has one processor")
    _, told = doctor(tmp_path, OMP_NUM_THREADS="1")
    assert "warning" in told["threads"]


def test_every_compression_can_be_read() -> None:
    assert all(hdf5_check.filters().values())
    assert {"gzip", "blosc", "lz4", "zstd", "bshuf"} <= set(hdf5_check.filters())


def test_locks_leave_nothing_behind(tmp_path: Path) -> None:
    assert hdf5_check.bears_locks(tmp_path)
    assert not list(tmp_path.iterdir())

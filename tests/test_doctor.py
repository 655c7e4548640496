"""The doctor's findings, on real ranks."""

import os
from pathlib import Path

import pytest
from commands import Program
from conftest import unavailable

from hrtemvae_hpc.movie import hdf5_check


def doctor(program: Program, ranks: int | None = None, **variables: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what is printed of each check."""
    outcome = program("doctor", ranks=ranks, variables=variables)
    assert "Traceback" not in outcome.text, outcome.text
    lines = [line for line in outcome.text.splitlines() if line[:1].strip()]
    return outcome.code, {line.split()[0].rstrip(":"): line for line in lines}


@pytest.mark.parametrize("ranks", [None, 2])
def test_where_everything_works(hrtemvae: Program, ranks: int | None, tmp_path: Path) -> None:
    code, checks = doctor(hrtemvae, ranks, OMP_NUM_THREADS="2")
    assert code == 0
    looked_at = {"program", "ranks", "MPI", "devices", "threads", "driver", "memory", "/dev/shm"}
    looked_at |= {"binds", "HDF5", "results"}
    assert set(checks) == looked_at | {"verdict"}
    assert f"ok       {ranks or 1} on " in checks["ranks"]
    assert ("libmpi" in checks["MPI"]) == bool(ranks)
    assert not list(tmp_path.iterdir())


def test_ranks_that_do_not_know_of_each_other(hrtemvae: Program) -> None:
    code, checks = doctor(hrtemvae, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0")
    assert code == 2
    assert "WRONG" in checks["ranks"]
    assert doctor(hrtemvae, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3") == (2, {})


def test_a_missing_scratch_folder(hrtemvae: Program, tmp_path: Path) -> None:
    code, checks = doctor(hrtemvae, HRTEMVAE_SCRATCH=str(tmp_path / "none"))
    assert code == 2
    assert "WRONG" in checks["scratch"]
    assert "scratch" in checks["verdict"]


def test_a_folder_that_is_not_bound(hrtemvae: Program, tmp_path: Path) -> None:
    assert doctor(hrtemvae, HRTEMVAE_BIND=f"/tmp /elsewhere:{tmp_path}")[0] == 0
    code, checks = doctor(hrtemvae, HRTEMVAE_BIND=f"/tmp {tmp_path}/none")
    assert code == 2
    assert "WRONG" in checks["binds"]


def test_another_pythons_packages(hrtemvae: Program, tmp_path: Path) -> None:
    code, checks = doctor(hrtemvae, PYTHONPATH=str(tmp_path))
    assert code == 0
    assert "warning" in checks["program"]


def test_fewer_threads_than_processors(hrtemvae: Program) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        unavailable("this machine has one processor")
    _, checks = doctor(hrtemvae, OMP_NUM_THREADS="1")
    assert "warning" in checks["threads"]


def test_every_compression_can_be_read() -> None:
    assert all(hdf5_check.filters().values())
    assert {"gzip", "blosc", "lz4", "zstd", "bshuf"} <= set(hdf5_check.filters())


def test_locks_leave_nothing_behind(tmp_path: Path) -> None:
    assert hdf5_check.supports_locks(tmp_path)
    assert not list(tmp_path.iterdir())

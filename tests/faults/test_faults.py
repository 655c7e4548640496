"""Ranks that die, hang or are stopped, and disks that fill up: for real, in a slow run."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from commands import Program, Running, command_line, environment
from conftest import assert_refused, assert_same_maps, drifting_pixels, on_a_small_disk

# 110 tiles, some hundredths of a second each: time to see two of them saved, and to act.
PACED = {"HRTEMVAE_TILES": "1x1", "HRTEMVAE_PACE": "0.05"}


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(12, 90, 100), chunks=(4, 90, 100), compression="gzip")
    return path


@pytest.fixture(scope="module")
def words(movie: Path, tiny_model_path: Path) -> tuple[object, ...]:
    return "analyze", movie, "--model", tiny_model_path, "--step", 2, "-o", "maps.h5"


@pytest.fixture(scope="module")
def undisturbed(
    words: tuple[object, ...], run_in: Callable[[Path], Program], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = run_in(folder)(*words)
    assert outcome.code == 0, outcome.text
    return folder / "maps.h5"


def parts(folder: Path) -> int:
    return len(list(folder.glob("maps.h5.parts/*.safetensors")))


@pytest.fixture
def start(hrtemvae: Program, words: tuple[object, ...]) -> Callable[..., Running]:
    """Starts a slow analysis, and waits until ``saved`` tiles are done."""

    def begin(ranks: int | None, *options: object, saved: int = 2) -> Running:
        run = hrtemvae.start(*words, *options, ranks=ranks, script="paced.py", variables=PACED)
        run.wait_until(lambda: parts(hrtemvae.folder) >= saved)
        return run

    return begin


def resume(hrtemvae: Program, words: tuple[object, ...], ranks: int | None, undisturbed: Path) -> None:
    """The same command again computes only what is missing, and the maps are those of an undisturbed run."""
    saved = parts(hrtemvae.folder)
    outcome = hrtemvae(*words, ranks=ranks)
    assert outcome.code == 0, outcome.text
    match = re.search(r"resuming: (\d+) of (\d+) tiles are done", outcome.text)
    assert match, outcome.text
    assert int(match[1]) == saved < int(match[2])
    table = re.findall(r"^ +\d+ +\S+ +(\d+) +[\d,]+ +[\d.]+ +[\d.]+ +[\d.]+", outcome.text, re.MULTILINE)
    assert sum(map(int, table)) == int(match[2]) - saved
    assert_same_maps(hrtemvae.folder / "maps.h5", undisturbed)
    assert not (hrtemvae.folder / "maps.h5.parts").exists()


@pytest.mark.parametrize(("ranks", "victim"), [(None, 0), (2, 0), (3, 2)])
def test_a_killed_rank_ends_the_job_and_the_next_run_resumes(
    start: Callable[..., Running],
    hrtemvae: Program,
    words: tuple[object, ...],
    undisturbed: Path,
    ranks: int | None,
    victim: int,
) -> None:
    run = start(ranks)
    began = time.monotonic()
    run.rank(victim).kill()
    assert run.wait(20) == 4, run.text
    assert time.monotonic() - began < 10
    assert re.search(
        rf"rank {victim} on \S+ was killed by SIGKILL while (working on tile \d+ \(window rows|waiting)", run.text
    )
    assert not (hrtemvae.folder / "maps.h5").exists()
    resume(hrtemvae, words, 2, undisturbed)


@pytest.mark.parametrize(
    ("ranks", "number"), [(None, signal.SIGTERM), (None, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGUSR1)]
)
def test_signals_stop_and_save(
    start: Callable[..., Running],
    hrtemvae: Program,
    words: tuple[object, ...],
    undisturbed: Path,
    ranks: int | None,
    number: signal.Signals,
) -> None:
    run = start(ranks)
    if ranks is None:
        run.send_signal(number)
    else:
        run.rank(1).send_signal(number)
    assert run.wait(20) == 3, run.text
    assert f"{number.name}: " in run.text
    assert "run the same command again to resume" in run.text
    assert "Traceback" not in run.text
    assert not (hrtemvae.folder / "maps.h5").exists()
    if number is signal.SIGTERM:
        resume(hrtemvae, words, 3, undisturbed)


@pytest.mark.parametrize("earlier", ["the same analysis", "another one"])
def test_a_restart_that_is_stopped_resumes_without_restart(
    start: Callable[..., Running],
    hrtemvae: Program,
    words: tuple[object, ...],
    undisturbed: Path,
    tmp_path: Path,
    earlier: str,
) -> None:
    if earlier == "another one":
        assert hrtemvae(*words, "--frames", ":6").code == 0
    else:
        shutil.copy(undisturbed, tmp_path / "maps.h5")
    before = (tmp_path / "maps.h5").read_bytes()
    run = start(None, "--restart")
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 3, run.text
    assert (tmp_path / "maps.h5").read_bytes() == before
    resume(hrtemvae, words, None, undisturbed)


def test_a_signal_to_the_launcher_reaches_the_ranks(start: Callable[..., Running]) -> None:
    run = start(2)
    run.send_signal(signal.SIGUSR1)
    assert run.wait(20) == 3, run.text


def test_ctrl_c_under_the_launcher_keeps_the_tiles(
    start: Callable[..., Running], hrtemvae: Program, words: tuple[object, ...], undisturbed: Path
) -> None:
    run = start(2)
    run.send_signal(signal.SIGINT)
    assert run.wait(20) != 0  # the launcher's own code
    resume(hrtemvae, words, None, undisturbed)


def test_a_killed_guardian_takes_its_rank_along(start: Callable[..., Running]) -> None:
    run = start(None)
    rank = run.rank(0)
    run.send_signal(signal.SIGKILL)
    run.wait(20)
    assert rank.wait(15) is None or not rank.is_running()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_silent_rank_is_named(start: Callable[..., Running], tmp_path: Path, victim: int) -> None:
    (tmp_path / "c.yaml").write_text("run: {silent_after: 2.0}")
    run = start(2, "--config", "c.yaml", saved=1)
    process = run.rank(victim)
    process.send_signal(signal.SIGSTOP)
    words = rf"rank 1 on \S+ \(process {process.pid}\) has been silent" if victim else r"rank 0 has not answered rank 1"
    run.wait_until(lambda: re.search(words, run.text), 20)
    process.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.text


def test_ranks_that_see_another_movie_are_refused_before_anything_changes(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]
) -> None:
    folder = tmp_path / "maps.h5.parts"
    folder.mkdir()
    (folder / "of an earlier run").write_text("")
    outcome = hrtemvae(*words, "--restart", ranks=2, script="other_movie.py")
    assert_refused(outcome, "rank 1 on", "make it see the same files")
    assert [path.name for path in folder.iterdir()] == ["of an earlier run"]


def test_a_rank_with_a_defect_ends_the_job(hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]) -> None:
    outcome = hrtemvae(*words, ranks=3, script="failing_rank.py")
    assert outcome.code == 4, outcome.text
    assert re.search(
        r"hrtemvae: rank 1 on \S+ failed while working on tile \d+ \(window rows [^)]*\): ArithmeticError: the"
        r" device is on fire",
        outcome.text,
    )
    assert not (tmp_path / "maps.h5").exists()


def test_a_rank_that_hangs_before_the_first_tile_is_named_and_the_job_can_be_stopped(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]
) -> None:
    run = hrtemvae.start(*words, ranks=3, script="hanging_rank.py")
    run.wait_until(lambda: re.search(r"rank 0 is waiting for rank 2 on \S+, which may hang", run.text), 30)
    run.send_signal(signal.SIGUSR1)
    assert run.wait(20) == 3, run.text
    assert os.listdir(tmp_path) == ["log"]


def test_a_launcher_that_starts_copies_of_a_world_of_one(hrtemvae: Program, words: tuple[object, ...]) -> None:
    outcome = hrtemvae(*words, variables={"SLURM_STEP_NUM_TASKS": "8"})
    assert_refused(outcome, "started 8 copies", "srun --mpi=pmix")


def test_an_mpi_that_ends_the_process_while_it_starts(hrtemvae: Program, words: tuple[object, ...]) -> None:
    outcome = hrtemvae(*words, variables={"SLURM_STEP_NUM_TASKS": "2", "PMIX_MCA_gds": "no such"})
    assert outcome.code == 5, outcome.text
    assert "MPI could not start (exit code" in outcome.text
    assert "run `hrtemvae doctor` under the same launcher." in outcome.text


def test_a_rank_that_is_killed_while_the_result_is_assembled(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]
) -> None:
    assert hrtemvae(*words, script="killed_while_assembling.py").code == 4
    assert os.listdir(tmp_path) == ["maps.h5.parts"]
    outcome = hrtemvae(*words)
    assert outcome.code == 0, outcome.text
    assert "tiles are done" in outcome.text
    assert sorted(os.listdir(tmp_path)) == ["maps.h5", "maps.html"]


# Full disks


def test_a_full_disk(tmp_path: Path, words: tuple[object, ...], undisturbed: Path) -> None:
    disk = tmp_path / "disk"
    analyze = " ".join(command_line([*words[:-1], disk / "maps.h5"], script="paced.py"))
    script = f"""
export HRTEMVAE_TILES=1x1
{analyze}; code=$?
ls -A {disk} {disk}/maps.h5.parts
[ $code = 5 ] || exit 1
mount -o remount,size=60m {disk}
{analyze} && cp {disk}/maps.h5 {tmp_path}/maps.h5
"""
    printed = on_a_small_disk(disk, "300k", script)
    assert "can't be saved (No space left on device); finished tiles are kept" in printed
    assert "resuming: " in printed
    assert_same_maps(tmp_path / "maps.h5", undisturbed)


def test_a_result_that_does_not_fit(tmp_path: Path, movie_path: Path, tiny_model_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    command = command_line(["analyze", movie_path, "--model", tiny_model_path, "-o", tmp_path / "maps.h5"])
    log = tmp_path / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            command, env=environment(), preexec_fn=limit, stdout=out, stderr=out, timeout=60, check=False
        )
    assert done.returncode == 5, log.read_text()
    assert "maps.h5: can't be written (" in log.read_text()
    assert sorted(os.listdir(tmp_path)) == ["log", "maps.h5.parts"]

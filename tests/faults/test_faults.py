"""Ranks that die, hang or are stopped, and disks that fill up: for real, on a run that takes its time."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import psutil
import pytest
from conftest import (
    assert_refused,
    assert_same_maps,
    command_line,
    drifting_pixels,
    environment,
    on_a_small_disk,
)

LONG = ("--step", 1)


@pytest.fixture(scope="module")
def long_movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(80, 200, 180), chunks=(10, 200, 180), compression="gzip")
    return path


@pytest.fixture(scope="module")
def undisturbed(long_movie: Path, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "maps.h5"
    subprocess.run(
        command_line(["analyze", long_movie, "--model", tiny_model_path, *LONG, "-o", path]),
        env=environment(), check=True, timeout=300,
    )  # fmt: skip
    return path


class Run:
    """An analysis under way."""

    def __init__(self, folder: Path, movie: Path, model: Path, ranks: int | None, *options: object) -> None:
        self.folder = folder
        self.log = folder / f"log{len(list(folder.glob('log*')))}"
        self.command = command_line(["analyze", movie, "--model", model, *LONG, "-o", "maps.h5", *options], ranks)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def parts(self) -> int:
        return len(list(self.folder.glob("maps.h5.parts/*.safetensors")))

    def wait_for_parts(self, count: int, timeout: float = 90) -> None:
        until = time.monotonic() + timeout
        while self.parts() < count:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.02)

    def rank(self, rank: int) -> psutil.Process:
        """The process that the table of ranks names for ``rank``."""
        match = re.search(rf"^ +{rank} +\S+ +(\d+) ", self.text, re.MULTILINE)
        assert match, self.text
        return psutil.Process(int(match[1]))

    def end(self, timeout: float = 20) -> int:
        return self.process.wait(timeout)


@pytest.fixture
def start(tmp_path: Path, long_movie: Path, tiny_model_path: Path) -> Iterator[Callable[..., Run]]:
    runs = []

    def begin(ranks: int | None, *options: object) -> Run:
        runs.append(Run(tmp_path, long_movie, tiny_model_path, ranks, *options))
        return runs[-1]

    yield begin
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        run.process.wait(20)


def go_on(start: Callable[..., Run], ranks: int | None, saved: int, undisturbed: Path) -> None:
    """The same command again computes only what is missing, and the maps are those of an undisturbed run."""
    run = start(ranks)
    assert run.end(300) == 0, run.text
    match = re.search(r"resuming: (\d+) of (\d+) tiles are done", run.text)
    assert match, run.text
    assert int(match[1]) == saved
    table = re.findall(r"^ +\d+ +\S+ +(\d+) +[\d,]+ +[\d.]+ +[\d.]+ +[\d.]+", run.text, re.MULTILINE)
    assert sum(map(int, table)) == int(match[2]) - saved
    assert_same_maps(run.folder / "maps.h5", undisturbed)
    assert not (run.folder / "maps.h5.parts").exists()


@pytest.mark.parametrize(("ranks", "victim"), [(None, 0), (2, 0), (3, 2)])
def test_killed_rank_ends_the_job_and_the_next_run_goes_on(
    start, undisturbed: Path, ranks: int | None, victim: int
) -> None:
    run = start(ranks)
    run.wait_for_parts(2)
    began = time.monotonic()
    run.rank(victim).kill()
    assert run.end() == 4, run.text
    assert time.monotonic() - began < 10
    assert re.search(
        rf"rank {victim} on \S+ was killed by SIGKILL while (working on tile \d+ \(window rows|waiting)", run.text
    )
    assert not (run.folder / "maps.h5").exists()
    go_on(start, 2, run.parts(), undisturbed)


@pytest.mark.parametrize(
    ("ranks", "number"), [(None, signal.SIGTERM), (None, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGUSR1)]
)
def test_signals_stop_and_save(start, undisturbed: Path, ranks: int | None, number: signal.Signals) -> None:
    run = start(ranks)
    run.wait_for_parts(2)
    if ranks is None:
        run.process.send_signal(number)
    else:
        run.rank(1).send_signal(number)
    assert run.end() == 3, run.text
    assert f"{number.name}: " in run.text
    assert "run the same command again to resume" in run.text
    assert "Traceback" not in run.text
    assert not (run.folder / "maps.h5").exists()
    if number is signal.SIGTERM:
        go_on(start, 3, run.parts(), undisturbed)


@pytest.mark.parametrize("earlier", ["the same analysis", "another one"])
def test_a_restart_that_is_stopped_goes_on_without_restart(
    start, undisturbed: Path, tmp_path: Path, hrtemvae, movie_path: Path, tiny_model_path: Path, earlier: str
) -> None:
    if earlier == "another one":
        assert hrtemvae("analyze", movie_path, "--model", tiny_model_path, "-o", tmp_path / "maps.h5").code == 0
    else:
        shutil.copy(undisturbed, tmp_path / "maps.h5")
    before = (tmp_path / "maps.h5").read_bytes()
    run = start(None, "--restart")
    run.wait_for_parts(2)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 3, run.text
    assert (tmp_path / "maps.h5").read_bytes() == before
    go_on(start, None, run.parts(), undisturbed)


def test_signal_to_the_launcher_reaches_the_ranks(start) -> None:
    run = start(2)
    run.wait_for_parts(1)
    run.process.send_signal(signal.SIGUSR1)
    assert run.end() == 3, run.text


def test_ctrl_c_under_the_launcher_keeps_the_tiles(start, undisturbed: Path) -> None:
    run = start(2)
    run.wait_for_parts(2)
    run.process.send_signal(signal.SIGINT)
    assert run.end() != 0  # the launcher's own code
    go_on(start, None, run.parts(), undisturbed)


def test_killed_guardian_takes_its_rank_along(start) -> None:
    run = start(None)
    run.wait_for_parts(1)
    child = run.rank(0)
    run.process.kill()
    run.end()
    assert child.wait(15) is None or not child.is_running()


@pytest.mark.parametrize("victim", [0, 1])
def test_silent_rank_is_named(start, tmp_path: Path, victim: int) -> None:
    (tmp_path / "c.yaml").write_text("run: {silent_after: 2.0}")
    run = start(2, "--config", "c.yaml")
    run.wait_for_parts(1)
    process = run.rank(victim)
    process.send_signal(signal.SIGSTOP)
    words = rf"rank 1 on \S+ \(process {process.pid}\) has been silent" if victim else r"rank 0 has not answered rank 1"
    until = time.monotonic() + 20
    while not re.search(words, run.text):
        assert time.monotonic() < until, run.text
        time.sleep(0.1)
    process.send_signal(signal.SIGCONT)
    assert run.end(200) == 0, run.text


def test_ranks_that_see_another_movie_are_refused_before_anything_changes(
    tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    code = f"""
from hrtemvae_hpc.analysis import job
from hrtemvae_hpc.ranks.guard import rank_of_launcher
known = job.Job.identity.fget
job.Job.identity = property(lambda self: known(self) | {{"movie": rank_of_launcher()}})
from hrtemvae_hpc.cli import main
main(["analyze", {str(movie_path)!r}, "--model", {str(tiny_model_path)!r}, "-o", "maps.h5", "--restart"])
"""
    parts = tmp_path / "maps.h5.parts"
    parts.mkdir()
    (parts / "of an earlier run").write_text("")
    done = subprocess.run(
        ["mpirun", "-n", "2", "python", "-c", code],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(re.findall(r"^hrtemvae: .*make rank 1 see the same files", done.stderr, re.MULTILINE)) == 1
    assert [path.name for path in parts.iterdir()] == ["of an earlier run"]


def test_raising_rank_ends_the_job(tmp_path: Path, long_movie: Path, tiny_model_path: Path) -> None:
    code = f"""
from hrtemvae_hpc.analysis import worker
from hrtemvae_hpc.ranks.guard import rank_of_launcher
compute = worker.Worker._compute
def fail(self, order, tiling):
    if rank_of_launcher() == 1 and order.first > 2:
        raise ArithmeticError("the device is on fire")
    return compute(self, order, tiling)
worker.Worker._compute = fail
from hrtemvae_hpc.cli import main
main(["analyze", {str(long_movie)!r}, "--model", {str(tiny_model_path)!r}, "--step", "1", "-o", "maps.h5"])
"""
    done = subprocess.run(
        ["mpirun", "-n", "3", "python", "-c", code],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert re.search(
        r"hrtemvae: rank 1 on \S+ failed while working on tile \d+ \(window rows [^)]*\): ArithmeticError: the"
        r" device is on fire",
        done.stderr,
    )
    assert not (tmp_path / "maps.h5").exists()


def test_rank_that_hangs_before_the_first_tile_is_named_and_the_job_can_be_stopped(
    tmp_path: Path, long_movie: Path, tiny_model_path: Path
) -> None:
    code = f"""
import time
from hrtemvae_hpc.ranks import world
from hrtemvae_hpc.analysis import opened
from hrtemvae_hpc.ranks.guard import rank_of_launcher
world.NAME_AFTER_S = 1.0
if rank_of_launcher() == 2:
    opened.load_model = lambda path: time.sleep(600)
from hrtemvae_hpc.cli import main
main(["analyze", {str(long_movie)!r}, "--model", {str(tiny_model_path)!r}, "-o", "maps.h5"])
"""
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["mpirun", "-n", "3", "python", "-c", code], cwd=tmp_path, env=environment(), stdout=out, stderr=out
        )
    until = time.monotonic() + 30
    while not re.search(r"rank 0 waits for rank 2 on \S+, which may hang", log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 3, log.read_text()
    assert sorted(os.listdir(tmp_path)) == ["log"]


def test_launcher_that_starts_copies_of_a_world_of_one(hrtemvae, movie_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert_refused(hrtemvae("analyze", movie_path), "started 8 copies", "srun --mpi=pmix")


def test_rank_killed_while_the_result_is_assembled(
    hrtemvae, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5"]
    code = f"""
import os, signal
from hrtemvae_hpc.analysis import job
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
    yield
job._finished_tiles = killed
from hrtemvae_hpc.cli import main
main({[str(c) for c in command]!r})
"""
    done = subprocess.run(["python", "-c", code], cwd=tmp_path, env=environment(), timeout=60, check=False)
    assert done.returncode == 4
    assert os.listdir(tmp_path) == ["maps.h5.parts"]
    outcome = hrtemvae(*command)
    assert outcome.code == 0, outcome.text
    assert "tiles are done" in outcome.text
    assert sorted(os.listdir(tmp_path)) == ["maps.h5", "maps.html"]


# Full disks


def test_full_disk(tmp_path: Path, long_movie: Path, tiny_model_path: Path, undisturbed: Path) -> None:
    disk = tmp_path / "disk"
    analyze = " ".join(
        ["hrtemvae", "analyze", str(long_movie), "--model", str(tiny_model_path), "--step 1", "-o", f"{disk}/maps.h5"]
    )
    script = f"""
{analyze}; code=$?
ls -A {disk} {disk}/maps.h5.parts
[ $code = 4 ] || exit 1
mount -o remount,size=60m {disk}
{analyze} && cp {disk}/maps.h5 {tmp_path}/maps.h5
"""
    told = on_a_small_disk(disk, "1500k", script)
    assert "can't be saved (No space left on device); finished tiles are kept" in told
    assert "resuming: " in told
    assert_same_maps(tmp_path / "maps.h5", undisturbed)


def test_result_that_does_not_fit(tmp_path: Path, movie_path: Path, tiny_model_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    command = command_line(["analyze", movie_path, "--model", tiny_model_path, "-o", tmp_path / "maps.h5"])
    log = tmp_path / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            command, env=environment(), preexec_fn=limit, stdout=out, stderr=out, timeout=60, check=False
        )
    assert done.returncode == 4, log.read_text()
    assert "maps.h5: can't be written (" in log.read_text()
    assert sorted(os.listdir(tmp_path)) == ["log", "maps.h5.parts"]

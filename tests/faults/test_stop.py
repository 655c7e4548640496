"""A signal ends the program with 3 within ten seconds, whatever it is doing, and nothing is left beside the parts.

Each phase is held for real, so that the signal arrives in it: by a lock that is never released. In Python the main
thread can still be interrupted there; inside the C library it can't, as in an endless decompression.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import psutil
import pytest
from commands import Program, Running
from conftest import assert_same_maps, drifting_pixels

LIMIT_S = 10.0


@dataclass
class Held:
    """A command that is held in one of its phases, and how a signal ended it."""

    folder: Path
    run: Running
    number: signal.Signals
    code: int | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.run.text

    def wait_until_held(self) -> None:
        self.run.wait_until(lambda: (self.folder / "held").exists())

    def stop(self) -> None:
        """Send the signal and wait for the end."""
        began = time.monotonic()
        self.run.send_signal(self.number)
        with contextlib.suppress(AssertionError):
            self.code = self.run.wait(3 * LIMIT_S)
        self.seconds = time.monotonic() - began

    def left(self) -> list[str]:
        return sorted(set(os.listdir(self.folder)) - {"log", "held"})


def held_at(where: str, how: str, rank: int | None = None) -> dict[str, Any]:
    """How to start the program so that the function ``where``, of a module or a class, never returns."""
    variables = {"HRTEMVAE_HOLD": where, "HRTEMVAE_HOLD_IN": how}
    if rank is not None:
        variables["HRTEMVAE_HOLD_RANK"] = str(rank)
    return {"script": "hold.py", "variables": variables}


JOB, WORKER = "hrtemvae_hpc.analysis.job", "hrtemvae_hpc.analysis.worker"
OPEN_MOVIE = "hrtemvae_hpc.movie.movie:Movie.__init__"
PHASES = {
    "reading the movie": (OPEN_MOVIE, "C", signal.SIGINT),
    "planning": (f"{JOB}:plan_job", "python", signal.SIGTERM),
    "staging": (f"{WORKER}:Worker._fill", "C", signal.SIGUSR1),
    "tiles": (f"{WORKER}:Worker._compute", "C", signal.SIGTERM),
    "the result": (f"{JOB}:write_result", "python", signal.SIGINT),
    "the result, in C": (f"{JOB}:_finished_tiles", "C", signal.SIGTERM),
    "the page": ("hrtemvae_hpc.maps.report:write_result_page", "python", signal.SIGUSR1),
}
BEFORE_PARTS = ("import", "reading the movie", "planning")
WITH_RESULT = ("the page",)
HELD_LIBRARY = """
import ctypes, pathlib
pathlib.Path("held").touch()
mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(mutex)
library.pthread_mutex_lock(mutex)
"""


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path) -> tuple[object, ...]:
    """An analysis that stages its movie, in tiles."""
    movie = tmp_path_factory.mktemp("movie") / "movie.h5"
    with h5py.File(movie, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(24, 120, 120), chunks=(24, 48, 48), compression="gzip")
    return ("analyze", movie, "--model", tiny_model_path, "--step", 4, "-o", "maps.h5")


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, analyze: tuple[object, ...], run_in: Callable[[Path], Program]
) -> Iterator[dict[str, Held]]:
    """Analyses that were stopped, each in another phase; all at once, because they only wait."""
    folder = tmp_path_factory.mktemp("stopped")
    program = run_in(folder)

    def begin(phase: str, number: signal.Signals, **how: Any) -> Held:
        (folder / phase).mkdir()
        return Held(folder / phase, program.start(*analyze, cwd=folder / phase, **how), number)

    try:
        library = folder / "library"
        library.mkdir()
        (library / "torch.py").write_text(HELD_LIBRARY)
        runs = {"import": begin("import", signal.SIGTERM, variables={"PYTHONPATH": str(library)})}
        for phase, (where, how, number) in PHASES.items():
            runs[phase] = begin(phase, number, **held_at(where, how))
        threads = [threading.Thread(target=run.stop) for run in runs.values()]
        for run, thread in zip(runs.values(), threads, strict=True):
            run.wait_until_held()
            thread.start()
        for thread in threads:
            thread.join()
        yield runs
    finally:
        program.end()


def assert_stopped(run: Held) -> None:
    assert run.code == 3, run.text
    assert run.seconds < LIMIT_S, run.text
    assert "Traceback" not in run.text
    sentences = [line for line in run.text.splitlines() if f"stopped by {run.number.name}" in line]
    assert len(sentences) == 1, run.text
    assert sentences[0].startswith("hrtemvae: ")
    assert "run the same command again" in sentences[0]


@pytest.mark.parametrize("phase", ["import", *PHASES])
def test_a_signal_stops_every_phase_of_an_analysis(stopped: dict[str, Held], phase: str) -> None:
    run = stopped[phase]
    assert_stopped(run)
    parts = [] if phase in (*BEFORE_PARTS, *WITH_RESULT) else ["maps.h5.parts"]
    assert run.left() == [*(["maps.h5"] if phase in WITH_RESULT else []), *parts]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, analyze: tuple[object, ...], run_in: Callable[[Path], Program]
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_in(folder)(*analyze).code == 0
    return folder / "maps.h5"


@pytest.mark.parametrize("phase", ["tiles", "the result, in C", "the page"])
def test_repeating_the_command_completes_the_analysis(
    stopped: dict[str, Held], undisturbed: Path, analyze: tuple[object, ...], hrtemvae: Program, phase: str
) -> None:
    run = stopped[phase]
    assert hrtemvae(*analyze, cwd=run.folder).code == 0
    assert_same_maps(run.folder / "maps.h5", undisturbed)
    assert run.left() == ["maps.h5", "maps.html"]


def test_waiting_for_the_turn_of_another_run_can_be_stopped(
    hrtemvae: Program, analyze: tuple[object, ...], stopped: dict[str, Held]
) -> None:
    folder, done = stopped["staging"].folder, threading.Event()
    turn = folder / "maps.h5.parts" / ".run.json.turn"
    turn.touch()

    def keep() -> None:
        while not done.wait(0.2):
            os.utime(turn)

    holder = threading.Thread(target=keep)
    holder.start()
    try:
        run = Held(folder, hrtemvae.start(*analyze, cwd=folder), signal.SIGTERM)
        time.sleep(4)
        assert run.run.process.poll() is None, run.text
        run.stop()
    finally:
        done.set()
        holder.join()
    assert_stopped(run)
    assert turn.exists()


@pytest.mark.parametrize(
    ("where", "how", "arguments"),
    [
        (f"{JOB}:plan_analysis", "python", ["plan", "movie.h5"]),
        (f"{JOB}:plan_analysis", "callback", ["plan", "movie.h5"]),
        ("hrtemvae_hpc.segments.job:build_segments", "python", ["segments", "micrographs", "-o", "segments.h5"]),
        ("hrtemvae_hpc.training.job:train", "python", ["train", "train.yaml"]),
    ],
    ids=["plan", "plan, in a callback", "segments", "train"],
)
def test_a_signal_stops_other_commands_on_ranks(
    hrtemvae: Program, tmp_path: Path, where: str, how: str, arguments: list[str]
) -> None:
    (tmp_path / "train.yaml").write_text("data: {segments: [segments.h5]}")
    run = Held(tmp_path, hrtemvae.start(*arguments, **held_at(where, how)), signal.SIGINT)
    run.wait_until_held()
    run.stop()
    assert_stopped(run)
    assert run.left() == ["train.yaml"]


def test_a_rank_that_can_not_be_interrupted_ends_with_its_guardian(
    hrtemvae: Program, tmp_path: Path, analyze: tuple[object, ...]
) -> None:
    run = Held(tmp_path, hrtemvae.start(*analyze, **held_at(OPEN_MOVIE, "C")), signal.SIGKILL)
    run.wait_until_held()
    [rank] = psutil.Process(run.run.process.pid).children()
    run.stop()
    rank.wait(5)
    assert run.left() == []


def test_ranks_end_together_where_one_can_not_be_interrupted(
    hrtemvae: Program, tmp_path: Path, analyze: tuple[object, ...]
) -> None:
    run = Held(tmp_path, hrtemvae.start(*analyze, ranks=2, **held_at(OPEN_MOVIE, "C", rank=1)), signal.SIGUSR1)
    run.wait_until_held()
    run.stop()
    assert run.code == 3, run.text
    assert run.seconds < LIMIT_S, run.text
    assert "Traceback" not in run.text
    assert run.left() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "-o", "movie.h5", "--frames", 2000, "--size", 400, 400],
        ["segments", "--simulated", 1_000_000, "-o", "segments.h5"],
    ],
    ids=["simulate", "segments"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_commands_of_one_process(
    hrtemvae: Program, tmp_path: Path, number: signal.Signals, arguments: list[object]
) -> None:
    run = Held(tmp_path, hrtemvae.start(*arguments), number)
    run.run.wait_until(run.left)
    run.stop()
    assert_stopped(run)
    assert run.left() == []


@pytest.mark.parametrize("ranks", [None, 2])
def test_nothing_is_left_in_the_folder_for_temporary_files(
    hrtemvae: Program, tmp_path: Path, analyze: tuple[object, ...], ranks: int | None
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = {"HOME": "/dev/null", "MPLCONFIGDIR": "", "TMPDIR": str(temporary)}
    outcome = hrtemvae(*analyze, ranks=ranks, variables=variables)
    assert outcome.code == 0, outcome.text
    assert "temporary cache directory" not in outcome.text  # of matplotlib, which an analysis does without
    assert os.listdir(temporary) == []
    drawn = hrtemvae("report", "maps.h5", variables=variables)
    assert drawn.code == 0, drawn.text
    assert "temporary cache directory" in drawn.text  # removed at the end
    assert os.listdir(temporary) == []

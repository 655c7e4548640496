"""A signal ends the program with 3 within ten seconds, whatever it is doing, and nothing is left beside the parts.

Each phase is held for real, so that the signal meets it: by a lock that is never released. In Python the main thread
can still be interrupted there; inside the C library it can't, as in an endless decompression.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import psutil
import pytest
from commands import BIN, command_line, environment
from conftest import assert_same_maps, drifting_pixels

LIMIT_S = 10.0

IN_PYTHON = "import threading; threading.Event().wait()"
IN_C = """
    import ctypes
    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_mutex_lock(mutex)
    c.pthread_mutex_lock(mutex)
"""
HOLD = """
def hold(*_, **__):
    from pathlib import Path
    Path("held").touch()
    {how}
"""
MAIN = """
from hrtemvae_hpc.cli import main
main({arguments!r})
"""


@dataclass
class Held:
    """A command that is held in one of its phases, and what a signal made of it."""

    folder: Path
    process: subprocess.Popen[bytes]
    number: signal.Signals
    code: int | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def wait_until_held(self) -> None:
        until = time.monotonic() + 90
        while not (self.folder / "held").exists():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.02)

    def stop(self) -> None:
        """Send the signal and wait for the end."""
        began = time.monotonic()
        self.process.send_signal(self.number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.code = self.process.wait(3 * LIMIT_S)
        self.seconds = time.monotonic() - began

    def left(self) -> list[str]:
        return sorted(set(os.listdir(self.folder)) - {"log", "held"})


def begin(folder: Path, number: signal.Signals, command: list[str], **variables: str) -> Held:
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment() | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    return Held(folder, process, number)


def python(held: str, how: str, *arguments: object, only: str = "") -> list[str]:
    """The command ``hrtemvae ARGUMENTS`` with the function ``held``, a module's or a class's, never returning."""
    module, _, name = held.partition(":")
    owner, _, attribute = f"{module}.{name}".rpartition(".")
    code = HOLD.format(how=how) + f"import {module}\n{only}{owner}.{attribute} = hold\n"
    return [str(BIN / "python"), "-c", code + MAIN.format(arguments=[str(a) for a in arguments])]


JOB, WORKER = "hrtemvae_hpc.analysis.job", "hrtemvae_hpc.analysis.worker"
PHASES = {
    "reading the movie": ("hrtemvae_hpc.movie.movie:Movie.__init__", IN_C, signal.SIGINT),
    "planning": (f"{JOB}:plan_job", IN_PYTHON, signal.SIGTERM),
    "staging": (f"{WORKER}:Worker._fill", IN_C, signal.SIGUSR1),
    "tiles": (f"{WORKER}:Worker._compute", IN_C, signal.SIGTERM),
    "the result": (f"{JOB}:write_result", IN_PYTHON, signal.SIGINT),
    "the result, in C": (f"{JOB}:_finished_tiles", IN_C, signal.SIGTERM),
    "the page": ("hrtemvae_hpc.maps.report:write_result_page", IN_PYTHON, signal.SIGUSR1),
}
BEFORE_PARTS = ("import", "reading the movie", "planning")
WITH_RESULT = ("the page",)


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path) -> tuple[object, ...]:
    """An analysis that stages its movie, in tiles."""
    movie = tmp_path_factory.mktemp("movie") / "movie.h5"
    with h5py.File(movie, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(24, 120, 120), chunks=(24, 48, 48), compression="gzip")
    return ("analyze", movie, "--model", tiny_model_path, "--step", 4, "-o", "maps.h5")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, analyze: tuple[object, ...]) -> Iterator[dict[str, Held]]:
    """Analyses that were stopped, each in another phase; all at once, as they do nothing but wait."""
    folder = tmp_path_factory.mktemp("stopped")
    runs = {}
    try:
        library = folder / "library"
        library.mkdir()
        (library / "torch.py").write_text(HOLD.format(how=IN_C) + "hold()\n")
        runs["import"] = begin(folder / "import", signal.SIGTERM, command_line(analyze), PYTHONPATH=str(library))
        for phase, (held, how, number) in PHASES.items():
            runs[phase] = begin(folder / phase, number, python(held, how, *analyze))
        threads = [threading.Thread(target=run.stop) for run in runs.values()]
        for run, thread in zip(runs.values(), threads, strict=True):
            run.wait_until_held()
            thread.start()
        for thread in threads:
            thread.join()
        yield runs
    finally:
        for run in runs.values():
            end(run.process)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        for member in [*family, process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(20)


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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, analyze: tuple[object, ...]) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "maps.h5"
    again(path.parent, analyze)
    return path


def again(folder: Path, analyze: tuple[object, ...]) -> None:
    subprocess.run(command_line(analyze), cwd=folder, env=environment(), check=True, timeout=60)


@pytest.mark.parametrize("phase", ["tiles", "the result, in C", "the page"])
def test_the_same_command_again_completes(
    stopped: dict[str, Held], undisturbed: Path, analyze: tuple[object, ...], phase: str
) -> None:
    run = stopped[phase]
    again(run.folder, analyze)
    assert_same_maps(run.folder / "maps.h5", undisturbed)
    assert run.left() == ["maps.h5", "maps.html"]


def test_a_turn_that_another_run_holds_can_be_left(stopped: dict[str, Held], analyze: tuple[object, ...]) -> None:
    folder, done = stopped["staging"].folder, threading.Event()
    turn = folder / "maps.h5.parts" / ".run.json.turn"
    turn.touch()

    def hold() -> None:
        while not done.wait(0.2):
            os.utime(turn)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        run = begin(folder, signal.SIGTERM, command_line(analyze))
        time.sleep(4)
        assert run.process.poll() is None, run.text
        run.stop()
    finally:
        done.set()
        holder.join()
        end(run.process)
    assert_stopped(run)
    assert turn.exists()


@pytest.mark.parametrize(
    ("held", "arguments"),
    [
        (f"{JOB}:plan_analysis", ["plan", "movie.h5"]),
        ("hrtemvae_hpc.segments.job:build_segments", ["segments", "micrographs", "-o", "segments.h5"]),
        ("hrtemvae_hpc.training.job:train", ["train", "train.yaml"]),
    ],
    ids=["plan", "segments", "train"],
)
def test_a_signal_stops_other_commands_on_ranks(tmp_path: Path, held: str, arguments: list[str]) -> None:
    (tmp_path / "train.yaml").write_text("data: {segments: [segments.h5]}")
    run = begin(tmp_path, signal.SIGINT, python(held, IN_PYTHON, *arguments))
    try:
        run.wait_until_held()
        run.stop()
    finally:
        end(run.process)
    assert_stopped(run)
    assert run.left() == ["train.yaml"]


def test_a_rank_that_can_not_be_interrupted_ends_with_its_guardian(tmp_path: Path, analyze: tuple[object, ...]) -> None:
    run = begin(tmp_path, signal.SIGKILL, python("hrtemvae_hpc.movie.movie:Movie.__init__", IN_C, *analyze))
    try:
        run.wait_until_held()
        [rank] = psutil.Process(run.process.pid).children()
        run.stop()
        rank.wait(5)
    finally:
        end(run.process)
    assert run.left() == []


def test_ranks_end_together_where_one_can_not_be_interrupted(tmp_path: Path, analyze: tuple[object, ...]) -> None:
    only = "from hrtemvae_hpc.ranks.guard import rank_of_launcher\nif rank_of_launcher() == 1: "
    held = python("hrtemvae_hpc.movie.movie:Movie.__init__", IN_C, *analyze, only=only)
    run = begin(tmp_path, signal.SIGUSR1, ["mpirun", "-n", "2", *held])
    try:
        run.wait_until_held()
        run.stop()
    finally:
        end(run.process)
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
    tmp_path: Path, number: signal.Signals, arguments: list[object]
) -> None:
    run = begin(tmp_path, number, command_line(arguments))
    try:
        wait_until(lambda: bool(run.left()), run)
        run.stop()
    finally:
        end(run.process)
    assert_stopped(run)
    assert run.left() == []


def wait_until(true: Callable[[], bool], run: Held) -> None:
    until = time.monotonic() + 60
    while not true():
        assert run.process.poll() is None, run.text
        assert time.monotonic() < until, run.text
        time.sleep(0.02)


@pytest.mark.parametrize("ranks", [None, 2])
def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, analyze: tuple[object, ...], ranks: int | None
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = {"HOME": "/dev/null", "MPLCONFIGDIR": "", "TMPDIR": str(temporary)}
    done = subprocess.run(
        command_line(analyze, ranks), cwd=tmp_path, env=environment() | variables, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "temporary cache directory" in done.stderr  # of matplotlib, which removes it in the end
    assert os.listdir(temporary) == []

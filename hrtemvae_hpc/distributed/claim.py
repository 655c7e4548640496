"""One run at a time on a result: a file in the folder of parts says who is at work and how far."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import replacing

_NAME = "run.json"
_TURN = ".run.json.turn"
_TURN_LOST_AFTER_S = 30.0
_EVERY_S = 10.0
_LOST_AFTER_S = 120.0


@dataclass(frozen=True)
class Run:
    """A run that is at work on a result."""

    host: str
    processes: str  # the host's name for the process namespace that `pid` counts in
    pid: int
    started: float  # the process, by its host's clock: tells it from a later one of the same pid
    job: str  # Slurm's number, "" outside
    share: float = 0.0  # of the windows that are done

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, {100 * self.share:.0f}% done"


def this_run() -> Run:
    """The run that this process is rank 0 of."""
    process = psutil.Process()
    return Run(
        socket.gethostname(), _processes(), process.pid, process.create_time(), os.environ.get("SLURM_JOB_ID", "")
    )


def _processes() -> str:
    return os.readlink("/proc/self/ns/pid")


def run_at_work(folder: Path) -> Run | None:
    """The run at work in a folder of parts, None where there is none or it is lost.

    A process of this host is looked up; one of another host counts as lost after two minutes without a sign of life,
    or at once if it belonged to the Slurm job that asks: Slurm starts a job again only after its end.
    """
    path = folder / _NAME
    try:
        run = Run(**json.loads(path.read_text()))
        age = _now(folder) - path.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    me = this_run()
    if (run.host, run.processes) == (me.host, me.processes):
        with suppress(psutil.Error):
            return run if psutil.Process(run.pid).create_time() == run.started else None
        return None
    return run if age < _LOST_AFTER_S and not (run.job and run.job == me.job) else None


def _now(folder: Path) -> float:
    """The time by the clock that stamps files in ``folder``, which may be a server's; ours where it is read-only."""
    clock = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            clock.unlink(missing_ok=True)


class Claim:
    """This run's claim on a folder of parts; as a context, it ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME
        self._told = 0.0

    def check(self) -> None:
        """Raise InputError where another run is at work."""
        if run := run_at_work(self._folder):
            raise InputError(
                f"{self._folder}: another run is at work on this result ({run}); wait for it, or choose another "
                "output with -o."
            )

    def take(self) -> None:
        """Claim the folder, which exists. Raises InputError where another run was faster, or it can't be written."""
        try:
            with self._turn():
                self.check()
                with replacing(self._path) as aside:
                    aside.write_text(json.dumps(asdict(this_run())))
        except OSError as error:
            raise InputError(
                f"{self._folder}: can't be written ({error.strerror}); make room or mend its permissions, or choose "
                "another output with -o."
            ) from error
        self._told = time.monotonic()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One run at a time looks at a claim and replaces it; a file's creation is atomic on network drives too."""
        turn = self._folder / _TURN
        while True:
            try:
                turn.touch(exist_ok=False)
                break
            except FileExistsError:
                with suppress(FileNotFoundError):  # a turn lasts milliseconds, unless its run was killed in it
                    if _now(self._folder) - turn.stat().st_mtime > _TURN_LOST_AFTER_S:
                        turn.unlink()
                time.sleep(0.05)
        try:
            yield
        finally:
            turn.unlink(missing_ok=True)

    def tell(self, share: float) -> None:
        """A sign of life, now and then, with the ``share`` of the windows that are done."""
        if time.monotonic() - self._told > _EVERY_S:
            run = asdict(this_run()) | {"share": share}
            with suppress(OSError), replacing(self._path) as aside:  # a full disk is told where a tile is saved
                aside.write_text(json.dumps(run))
            self._told = time.monotonic()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        """Give the folder free."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

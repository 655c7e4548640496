"""One run at a time on a result: a file in the folder of parts says who is at work and how far."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import replacing

_NAME = "run.json"
_EVERY_S = 10.0
_TRIES = 5
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


def run_at_work(folder: Path, name: str = _NAME) -> Run | None:
    """The run at work in a folder of parts, None where there is none or it is lost.

    A process of this host is looked up; one of another host counts as lost after two minutes without a sign of life,
    or at once if it belonged to the Slurm job that asks: Slurm starts a job again only after its end.
    """
    path = folder / name
    try:
        run = Run(**json.loads(_read(path)))
        age = _now(folder) - path.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    me = this_run()
    if (run.host, run.processes) == (me.host, me.processes):
        with suppress(psutil.Error):
            return run if psutil.Process(run.pid).create_time() == run.started else None
        return None
    return run if age < _LOST_AFTER_S and not (run.job and run.job == me.job) else None


def _read(path: Path) -> str:
    """The text of a file that may just be about to be written."""
    for _ in range(20):
        if text := path.read_text():
            return text
        time.sleep(0.05)
    return ""


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
        """Claim the folder, which exists. Raises InputError where another run was faster."""
        self.check()
        for _ in range(_TRIES):
            with suppress(FileExistsError, FileNotFoundError):
                self._write_new()
                self._told = time.monotonic()
                return
            self._set_aside()
            self.check()
        raise InputError(f"{self._path}: other runs want this result too; try again.")

    def _set_aside(self) -> None:
        """Remove a claim that is lost, unless another run has just replaced it."""
        lost = self._path.with_name(f".{self._path.name}.{socket.gethostname()}.{os.getpid()}")
        with suppress(FileNotFoundError):  # another run was faster
            self._path.replace(lost)
            if run_at_work(self._folder, lost.name):
                lost.replace(self._path)
            lost.unlink(missing_ok=True)

    def _write_new(self) -> None:
        text = json.dumps(asdict(this_run())).encode()
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.write(file, text)
        finally:
            os.close(file)

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

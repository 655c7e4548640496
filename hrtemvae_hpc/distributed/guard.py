"""Every rank runs under a small guardian process that outlives it.

The guardian forks before MPI or a GPU is touched. When the rank is killed (most often because the node ran out
of memory) it says which rank, host and tile that was, and ends with exit code 4, so that the launcher ends the
whole job with that code.
"""

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hrtemvae_hpc.errors import RankFailed, Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_LOOK_EVERY_S = 1.0
_note = mmap.mmap(-1, 4096)
_guardian = 0


def doing(what: str) -> None:
    """Tell the guardian what this rank is doing, for the message it prints if the rank is killed."""
    text = what.encode()[: len(_note) - 1]
    _note.seek(0)
    _note.write(text + b"\0")


class StopRequest:
    """Becomes true when a signal asks this rank to stop, its guardian is gone, or the file in HRTEMVAE_STOP appears."""

    def __init__(self) -> None:
        self.name = ""
        self._file = os.environ.get("HRTEMVAE_STOP", "")
        self._looked = 0.0
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name

    def __bool__(self) -> bool:
        if not self.name and _guardian != 0 and os.getppid() != _guardian:
            self.name = "the end of its guardian process"
        if not self.name and self._file and time.monotonic() - self._looked > _LOOK_EVERY_S:
            self._looked = time.monotonic()
            if os.path.exists(self._file):
                self.name = "its batch script"
        return bool(self.name)


def run_guarded(work: Callable[["StopRequest"], int]) -> int:
    """Run ``work`` in a child process and return its exit code; 4 if it was killed by a signal, 3 if while it stopped.

    ``work`` is given the stop request that the signals to either process set.
    """
    global _guardian
    doing("starting")
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until both processes can take them
    child = os.fork()
    if child == 0:
        _guardian = guardian
        stop = StopRequest()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os._exit(work(stop))

    asked = ""

    def forward(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = signal.Signals(number).name
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in STOP_SIGNALS:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    killer = signal.Signals(os.WTERMSIG(status))
    what = bytes(_note[:]).split(b"\0")[0].decode("utf-8", "replace")
    if asked:
        # In a container, the signal may also have ended the process that keeps the image mounted.
        told = f"hrtemvae: stopped by {asked}; what is done is saved, run the same command again to go on."
        print(told, file=sys.stderr, flush=True)
        return Stopped.exit_code
    likely = "; the node may have run out of memory, see --max-memory" if killer is signal.SIGKILL else ""
    print(
        f"hrtemvae: rank {rank_of_launcher()} on {socket.gethostname()} was killed by {killer.name} "
        f"while {what}{likely}. What is done is saved: run the same command again to go on.",
        file=sys.stderr,
        flush=True,
    )
    return RankFailed.exit_code


def rank_age() -> float:
    """Seconds since this rank, with its guardian, was started; those of loading the program among them."""
    first = Path("/proc", str(_guardian), "stat")
    stat = (first if first.exists() else Path("/proc/self/stat")).read_text()
    started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): ticks after the boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def rank_of_launcher() -> int:
    """This process's rank as its launcher tells it, known without MPI."""
    torchrun = ("RANK",) if "TORCHELASTIC_RUN_ID" in os.environ else ()
    for name in (*torchrun, "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0

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
from collections.abc import Callable
from types import FrameType

from hrtemvae_hpc.errors import RankFailed

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_note = mmap.mmap(-1, 4096)
_guardian = 0


def doing(what: str) -> None:
    """Tell the guardian what this rank is doing, for the message it prints if the rank is killed."""
    text = what.encode()[: len(_note) - 1]
    _note.seek(0)
    _note.write(text + b"\0")


class StopRequest:
    """Becomes true when a signal asks this rank to stop, or its guardian is gone."""

    def __init__(self) -> None:
        self.name = ""
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name

    def __bool__(self) -> bool:
        if not self.name and _guardian != 0 and os.getppid() != _guardian:
            self.name = "the end of its guardian process"
        return bool(self.name)


def run_guarded(work: Callable[["StopRequest"], int]) -> int:
    """Run ``work`` in a child process and return its exit code; 4 if it was killed by a signal.

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

    def forward(number: int, _: FrameType | None) -> None:
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
    likely = "; the node may have run out of memory, see --max-memory" if killer is signal.SIGKILL else ""
    print(
        f"hrtemvae: rank {rank_of_launcher()} on {socket.gethostname()} was killed by {killer.name} "
        f"while {what}{likely}. Finished tiles are saved: run the same command again to go on.",
        file=sys.stderr,
        flush=True,
    )
    return RankFailed.exit_code


def rank_of_launcher() -> int:
    """This process's rank as its launcher tells it, known without MPI."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0

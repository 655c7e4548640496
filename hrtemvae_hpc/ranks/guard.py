"""Every rank runs under a small guardian process that outlives it.

The guardian forks before anything large is loaded, and before MPI or a GPU is touched. When the rank is killed (most
often because the node ran out of memory) it says which rank, host and tile that was, and ends with exit code 4, so that
the launcher ends the whole job with that code. When a signal asks the rank to stop and it doesn't, the guardian kills
it.
"""

import atexit
import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hrtemvae_hpc.errors import Blocked, HrtemvaeError, RankFailed, Stopped, report

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_LOOK_EVERY_S = 1.0
_PATIENCE_S = (3.0, 5.0)  # least and most, for work that checks its stop request regularly
STARTING_MPI = "starting MPI"  # what a rank is doing then
_MISSED_LOOKS = 10
_SOON_S = 0.001
_GRACE_S = 8.0  # from a signal to the end of a rank; it may wait for other ranks, see world.py
_REAP_S = 1.0  # from there to the end of its guardian, even if the disk keeps the rank from ending
_EXIT_FUNCTIONS_S = 2.0
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_note = mmap.mmap(-1, 4096)
_guardian = 0


def doing(what: str) -> None:
    """Tell the guardian what this rank is doing, for the message it prints if the rank is killed."""
    text = what.encode()[: len(_note) - 1]
    _note.seek(0)
    _note.write(text + b"\0")


class StopRequest:
    """Becomes true when a signal asks this rank to stop, or the file in HRTEMVAE_STOP appears.

    Work that checks it regularly ends by itself. Any other is interrupted by a signal: Stopped is raised in the main
    thread, wherever that is; and again where Python discards exceptions, as in the callback of a weak reference.
    """

    def __init__(self) -> None:
        self.name = ""
        self._file = os.environ.get("HRTEMVAE_STOP", "")
        self._looked_for_file = 0.0
        self._looked = 0.0
        self._patience = 0.0
        self._seen = False
        signal.signal(signal.SIGALRM, self._interrupt)
        sys.unraisablehook = _interrupt_again
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _: FrameType | None) -> None:
        if self.name:
            return
        self.name = signal.Signals(number).name
        if _guardian and os.getppid() == _guardian:
            os.kill(_guardian, number)
        left = self._looked + self._patience - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(left, _SOON_S))

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        if not self._seen:
            raise Stopped(f"stopped by {self.name}; run the same command again to resume.")

    def __bool__(self) -> bool:
        now = time.monotonic()
        least, most = _PATIENCE_S
        self._patience = min(max(_MISSED_LOOKS * (now - self._looked), least), most)
        self._looked = now
        if not self.name and self._file and now - self._looked_for_file > _LOOK_EVERY_S:
            self._looked_for_file = now
            if os.path.exists(self._file):
                self.name = "its batch script"
        self._seen = bool(self.name)
        return self._seen


def _interrupt_again(discarded: "sys.UnraisableHookArgs") -> None:
    if isinstance(discarded.exc_value, Stopped):
        signal.setitimer(signal.ITIMER_REAL, _SOON_S)
    else:
        sys.__unraisablehook__(discarded)


def run_guarded(work: Callable[["StopRequest"], int]) -> int:
    """Run ``work`` in a child process and return its exit code; 4 if a signal killed it, 3 if it was stopping then.

    ``work`` is given the stop request that the signals to either process set.
    """
    global _guardian
    doing("starting")
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        _guardian = guardian
        _end_with_guardian()
        try:
            stop = StopRequest()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            code = work(stop)
        except HrtemvaeError as error:
            report(error)
            code = error.exit_code
        except MemoryError as error:
            report(RankFailed(f"memory ran out ({error}); the node has too little for this."))
            code = RankFailed.exit_code
        except Exception:  # noqa: BLE001  it must not continue as its guardian
            traceback.print_exc()
            code = 1
        end_process(code)

    status, asked = _watch(child)
    what = bytes(_note[:]).split(b"\0")[0].decode("utf-8", "replace")
    who = f"rank {rank_of_launcher()} on {socket.gethostname()}"
    if status is not None and not os.WIFSIGNALED(status):
        code = os.WEXITSTATUS(status)
        if code == 0 or what != STARTING_MPI:
            return code
        report(
            Blocked(
                f"{who}: MPI could not start (exit code {code}, its messages are above). Most likely it and the "
                "launcher can't communicate: run `hrtemvae doctor` under the same launcher."
            )
        )
        return Blocked.exit_code
    if asked:
        # In a container, the signal may also have ended the process that keeps the image mounted.
        report(Stopped(f"stopped by {asked}; what is done is saved: run the same command again to resume."))
        return Stopped.exit_code
    assert status is not None
    killer = signal.Signals(os.WTERMSIG(status))
    likely = "; the node may have run out of memory, see --max-memory" if killer is signal.SIGKILL else ""
    report(
        RankFailed(
            f"{who} was killed by {killer.name} while {what}{likely}. "
            "What is done is saved: run the same command again to resume."
        )
    )
    return RankFailed.exit_code


def _end_with_guardian() -> None:
    """Have the kernel kill this rank when its guardian ends: it may hang in C code, and no launcher knows about it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _guardian:
        os._exit(RankFailed.exit_code)


def _watch(child: int) -> tuple[int | None, str]:
    """Wait for the rank's end; returns its status, None if it can't be ended, and the signal that asked it to stop.

    The signals to this process, which are blocked, are passed on to the rank. It is killed if it doesn't end then.
    """
    asked, killed, until = "", False, float("inf")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, asked
        left = until - time.monotonic()
        if left <= 0:
            if killed:
                return None, asked
            os.kill(child, signal.SIGKILL)
            killed, until = True, time.monotonic() + _REAP_S
            continue
        came = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, min(left, 3600.0))
        if came is not None and came.si_signo in STOP_SIGNALS and not asked:
            asked, until = signal.Signals(came.si_signo).name, time.monotonic() + _GRACE_S
            os.kill(child, came.si_signo)


def prepare_to_end() -> None:
    """Flush the output, and let no signal interrupt this rank's main thread from now on: it is ending."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # its reader has gone, as in `hrtemvae plan movie.h5 | head`
            stream.flush()


def run_exit_functions() -> None:
    """Run what libraries left for the end, such as removing their temporary files.

    Only for some seconds: they may wait for a lock held by a thread that never ends.
    """
    functions = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    functions.start()
    functions.join(_EXIT_FUNCTIONS_S)


def end_process(code: int) -> NoReturn:
    """End this process with ``code``, after its exit functions, whatever its other threads do."""
    with suppress(OSError):
        prepare_to_end()
    run_exit_functions()
    os._exit(code)


def rank_age() -> float:
    """Seconds since this rank, with its guardian, was started, including those of loading the program."""
    first = Path("/proc", str(_guardian), "stat")
    stat = (first if first.exists() else Path("/proc/self/stat")).read_text()
    started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): ticks after the boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def rank_of_launcher() -> int:
    """This process's rank as its launcher states it, known without MPI."""
    torchrun = ("RANK",) if "TORCHELASTIC_RUN_ID" in os.environ else ()
    for name in (*torchrun, "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0

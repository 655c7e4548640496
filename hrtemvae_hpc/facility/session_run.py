"""A session on one machine without Slurm: one movie after another, each in its own process."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from hrtemvae_hpc.errors import InputError, Stopped, printable
from hrtemvae_hpc.facility.session import Session, State
from hrtemvae_hpc.facility.session_status import remark
from hrtemvae_hpc.files import append_to_log, saving

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run_session(session: Session, todo: Sequence[int], ranks: int, say: Callable[[str], None]) -> None:
    """Analyse the movies ``todo`` one after the other, each on ``ranks`` ranks.

    Raises Stopped at SIGINT, SIGTERM or SIGUSR1, which also stop the analysis at work; InputError without an MPI
    for several ranks.
    """
    if ranks > 1 and shutil.which("mpirun") is None:
        raise InputError("mpirun is not on the PATH; install an MPI, or leave out --ranks.")
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    for count, index in enumerate(todo, 1):
        movie = session.begin(index, ranks)
        if movie is None:
            continue
        say(f"{count} of {len(todo)}: {printable(session.names[index])}")
        command = [*launcher, sys.executable, "-m", "hrtemvae_hpc", *session.arguments(movie)]
        with saving(movie.log, "remove it, or make room."), append_to_log(movie.log) as log:
            code, stopped = _run(command, log.fileno())
        movie = session.end(index, code, again=stopped)
        if stopped:
            raise Stopped("stopped; run the same command again to resume.")
        say(f"  {movie.state.value}" + (f": {remark(movie)}" if movie.state is not State.DONE else ""))


def _run(command: list[str], log: int) -> tuple[int, bool]:
    """Exit code of ``command``, and whether a signal to this process stopped it."""
    process: subprocess.Popen[bytes] | None = None
    stopped = False

    def pass_on(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if process is not None:
            # mpirun passes this one on to the ranks, which save what is done.
            process.send_signal(signal.SIGUSR1)

    before = {number: signal.signal(number, pass_on) for number in _STOPS}
    try:
        # A session of its own: a Ctrl-C of the terminal reaches only this process, and is passed on once.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        if stopped:
            process.send_signal(signal.SIGUSR1)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # 4: killed, as the guardian of a rank would report.
    return (code if code >= 0 else 4), stopped

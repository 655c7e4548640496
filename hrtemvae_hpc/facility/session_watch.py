"""A session that goes on while movies are recorded: each is analysed when its files have stopped changing."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hrtemvae_hpc.facility.movies import Found, find_movies
from hrtemvae_hpc.facility.session import Session, begin_session
from hrtemvae_hpc.facility.settled import Settled
from hrtemvae_hpc.ranks.guard import STOP_SIGNALS

_LOOKS = 4  # at the folder, in the time in which files must not change
_EVERY_S = 0.2, 15.0  # at least and at most, between them
_NOTICED_S = 0.2  # until a signal is, at most


def watch_session(
    movies: Path,
    folder: Path,
    options: Sequence[str],
    settle_s: float,
    work: Callable[[Session, list[int]], None],
) -> Session:
    """Call ``work`` with the session and the numbers of movies that have arrived in it, until a signal.

    A movie has arrived when its files have not changed for ``settle_s`` seconds; what was there before counts too. Each
    comes once, and again if its file changes after it failed. Raises InputError as ``begin_session`` does, and what
    ``work`` raises.
    """
    movies, folder = movies.absolute(), folder.absolute()
    settled = Settled(movies, settle_s)
    given: set[tuple[int, int, float]] = set()
    said: set[str] = set()
    least, most = _EVERY_S
    with _signals_set() as stop:
        while True:
            settled.look()
            found = find_movies(movies, folder, settled)
            fresh = [reason for reason in found.left_out if reason not in said]
            said.update(fresh)
            session = begin_session(movies, folder, options, Found(found.names, fresh))
            arrived = [i for i in session.missing() if session.names[i] in found.names]
            new = [i for i in arrived if (i, *session.stamp(i)) not in given]
            given.update((i, *session.stamp(i)) for i in new)
            if new and not stop.asked:
                work(session, new)
            if stop.wait(min(max(settle_s / _LOOKS, least), most)):
                return session


class _Stop:
    """Whether a signal to stop has come. No lock: its handler may run at any point of the thread that waits."""

    asked = False

    def ask(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        self.asked = True

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it was asked for; returns whether it was."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NOTICED_S))
        return self.asked


@contextmanager
def _signals_set() -> Iterator[_Stop]:
    """What the signals to stop set."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.ask) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

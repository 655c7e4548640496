"""A movie that is being written: how many of its frames can be read, and whether it still grows."""

import os
import time
from pathlib import Path

from hrtemvae_hpc.config import MovieSection, Roi
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.opening import open_frames

_Stamp = tuple[object, ...]


class Recording:
    """A movie, opened again at each look at it. Frames count among those that ``section`` selects.

    The newest frame is left until another follows: it may be incomplete.
    """

    def __init__(self, path: Path, section: MovieSection, other_roi: Roi | None, settle_s: float) -> None:
        """The movie at ``path``, which need not exist yet; it ends when it hasn't changed for ``settle_s`` seconds.

        ``other_roi`` as that of ``Movie``.
        """
        self.path, self._section, self._other_roi, self._settle_s = path, section, other_roi, settle_s
        self._source: FrameSource | None = None
        self._complete = 0  # frames of the files
        self.count = 0  # frames that can be read
        self.obstacle = ""  # why no more can be read
        self._stamp: _Stamp = ()
        self._changed = time.monotonic()
        self._arrivals: list[tuple[int, float]] = []  # count, and when it was first seen
        self._was_open = False
        self._is_closed = False

    def look(self) -> None:
        """Open the movie as it is now, and count its frames. Raises InputError if another movie took its place."""
        self.close()
        try:
            self._source = open_frames(self.path, self._section, growing=True)
            self._complete = self._source.complete(min(self._complete, self._source.description.shape[0]))
            self.obstacle = ""
        except InputError as error:
            self.obstacle = str(error)
        now = time.monotonic()
        if self._source is not None:
            is_open = self._source.is_open_in_writer
            self._is_closed = self._was_open and not is_open
            self._was_open = self._was_open or is_open
            count = len(self._selected(self._complete - 1))
            if count < self.count:
                raise InputError(
                    f"{self.path}: has fewer frames than before, as if another movie took its place; run the same "
                    "command again to follow that."
                )
            if count > self.count:
                self.count = count
                self._arrivals.append((count, now))
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp, self._changed = stamp, now

    @property
    def has_ended(self) -> bool:
        """Whether its writer closed it, or it exists and hasn't changed for long enough."""
        return self._is_closed or (bool(self._stamp) and time.monotonic() - self._changed > self._settle_s)

    def age(self, count: int) -> float:
        """Seconds since the last of the first ``count`` frames was seen to be complete."""
        seen = next((when for known, when in self._arrivals if known >= count), time.monotonic())
        return time.monotonic() - seen

    def forget(self, count: int) -> None:
        """Forget when frames before the last of the first ``count`` arrived."""
        self._arrivals = [(known, when) for known, when in self._arrivals if known >= count]

    def frames(self, which: slice) -> Movie:
        """The movie of ``which`` of its frames, a range with a step; readable until the next look.

        Raises InputError if it can't be read any more.
        """
        chosen = self._selected(self._complete)[which]
        selection = {"frames": (chosen.start, chosen[-1] + 1, chosen.step)}
        movie = Movie(self.path, self._section.model_copy(update=selection), self._other_roi, self._source)
        self._source = movie.source
        return movie

    def close(self) -> None:
        """Close the files."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _selected(self, total: int) -> range:
        start, stop, step = self._section.frames or (None, None, None)
        return range(start or 0, max(0, total if stop is None else min(stop, total)), step or 1)

    def _stamp_now(self) -> _Stamp:
        """What changes as long as the movie is written; nothing if there is none."""
        try:
            status = os.stat(self.path)
        except OSError:
            return ()
        return status.st_size, status.st_mtime_ns, self._complete

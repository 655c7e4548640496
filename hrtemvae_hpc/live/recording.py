"""A movie that is being written: how many of its frames can be read, and whether it still grows."""

import os
import time
from pathlib import Path

from hrtemvae_hpc.config import MovieSection, Roi
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.opening import open_frames
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES

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
        self._arrivals: list[tuple[int, float]] = []  # count, and when so many had arrived
        self._is_open = self._was_open = self._is_closed = False  # in or by its writer
        self._inode: int | None = None

    def look(self) -> None:
        """Open the movie as it is now, and count its frames. Raises InputError if another movie took its place."""
        self.close()
        try:
            self._source = open_frames(self.path, self._section, growing=True)
            self._complete = self._source.complete(min(self._complete, self._source.description.shape[0]))
            self.obstacle = ""
        except (InputError, OSError) as error:
            self.obstacle = str(error)
        if self._source is not None:
            self._is_open = self._source.is_open_in_writer
            self._is_closed = self._was_open and not self._is_open
            self._was_open = self._was_open or self._is_open
            count = len(self._selected(self._complete - 1))
            if count < self.count:
                raise self._replaced()
            self.count = count
        self._notice_changes()

    @property
    def has_ended(self) -> bool:
        """Whether its writer closed it, or it has existed and hasn't changed for long enough.

        One that is open in its writer may take any time until it has as many frames as maps need.
        """
        if self._is_closed or self._inode is None:
            return self._is_closed
        waits = self._is_open and self.count < MINIMUM_FRAMES
        return not waits and time.monotonic() - self._changed > self._settle_s

    def note_arrival(self, count: int) -> None:
        """Note that ``count`` frames have arrived by now."""
        if not self._arrivals or count > self._arrivals[-1][0]:
            self._arrivals.append((count, time.monotonic()))

    def age(self, count: int) -> float:
        """Seconds since the last of the first ``count`` frames arrived."""
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
        if not chosen:
            raise self._replaced()
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

    def _notice_changes(self) -> None:
        """Note whether the movie is still written; raise InputError if another took its place."""
        stamp: _Stamp = ()
        try:
            status = os.stat(self.path)
        except OSError:
            pass
        else:
            stamp = status.st_size, status.st_mtime_ns, self._complete
            if self._inode not in (None, status.st_ino):
                raise self._replaced()
            self._inode = status.st_ino
        if stamp != self._stamp:
            self._stamp, self._changed = stamp, time.monotonic()

    def _replaced(self) -> InputError:
        return InputError(
            f"{self.path}: another movie took its place while it was followed; run the same command again to follow "
            "that."
        )


def count_written(recording: Recording, known: int) -> int:
    """How many frames of ``recording`` were written, where ``known`` were. Raises InputError if they can't be read.

    Frames at the end that hold a single value may only be reserved.
    """
    if recording.count <= known or _is_written(recording, recording.count - 1):
        return recording.count
    step = 1
    while known + step < recording.count and _is_written(recording, known + step - 1):
        known, step = known + step, 2 * step
    empty = min(known + step, recording.count) - 1
    while known < empty:
        middle = (known + empty) // 2
        known, empty = (middle + 1, empty) if _is_written(recording, middle) else (known, middle)
    return known


def _is_written(recording: Recording, number: int) -> bool:
    movie = recording.frames(slice(number, number + 1))
    try:
        frame = movie.read(slice(0, 1), movie.area)
    except OSError:  # it can't be decoded
        return True
    return bool((frame != frame.flat[0]).any())

"""The files of a folder that may be frames of one movie, in order."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.movie.formats.names import gaps, natural

_MOST_FILES = 2**20
_LEVELS = ("hour", "minute", "second")
_PART = re.compile("(hour|minute|second)_([0-9]{1,4})", re.IGNORECASE)
_FRAME = re.compile("frame_([0-9]{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Listing:
    """Files in order."""

    files: list[Path]
    place: list[tuple[int, int]] | None = None  # of each file, in Gatan's in situ trees: second, and frame in it

    def times_s(self, chosen: Sequence[int]) -> np.ndarray | None:
        """The times that the names of the ``chosen`` files state [files] float64, from the first; None if none.

        Frames count from 0 in each second. The second with the most of them is taken as full.
        """
        if self.place is None:
            return None
        rate = max(Counter(self.place[i][0] for i in chosen).values())
        rate = max(rate, *(self.place[i][1] + 1 for i in chosen))
        seconds, frames = np.array([self.place[i] for i in chosen], float).T
        times: np.ndarray = seconds + frames / rate
        times -= times[0]
        return times

    def missing(self, chosen: Sequence[int]) -> str | None:
        """The seconds, or frames within a second, that are missing among the ``chosen`` files of a tree, in words."""
        if self.place is None:
            return None
        by_second: dict[int, list[int]] = {}
        for i in chosen:
            by_second.setdefault(self.place[i][0], []).append(self.place[i][1])
        found = [f"seconds {lost}" for lost in [gaps(list(by_second))] if lost]
        for second, frames in by_second.items():
            if lost := gaps([-1, *frames]):
                found.append(f"in second {second} frames {lost}")
        return "; ".join(found[:3]) + (f"; and in {len(found) - 3} more seconds" if len(found) > 3 else "") or None


def list_folder(folder: Path) -> Listing:
    """The visible files of ``folder`` in the natural order of their names.

    Of Gatan's in situ trees, Hour_00/Minute_00/Second_00/*_Frame_0000.dm4, those of all seconds, in order:
    https://github.com/hyperspy/hyperspy/pull/1945. A director that lies beside the hours is left out.
    Raises InputError if the folder can't be read or holds too many files.
    """
    hours = _parts(folder, 0)
    if not hours:
        return Listing(_files(folder))
    seconds = [
        (3600 * hour + 60 * minute + second, inside)
        for hour, in_hour in hours
        for minute, in_minute in _parts(in_hour, 1)
        for second, inside in _parts(in_minute, 2)
    ]
    files: list[Path] = []
    place = []
    for second, inside in seconds:
        numbered = [(_FRAME.search(file.name), file) for file in _files(inside)]
        for number, file in sorted((int(n[1]) if n else i, file) for i, (n, file) in enumerate(numbered)):
            files.append(file)
            place.append((second, number))
        _check_count(folder, len(files))
    return Listing(files, place)


def is_hour(name: str) -> bool:
    """Whether a folder of this name holds an hour of Gatan's in situ trees."""
    match = _PART.fullmatch(name)
    return match is not None and match[1].lower() == _LEVELS[0]


def _parts(folder: Path, level: int) -> list[tuple[int, Path]]:
    """The folders of hours, minutes or seconds in ``folder``, with their numbers, in order."""
    found = []
    for name, entry in _entries(folder):
        match = _PART.fullmatch(name)
        if match and match[1].lower() == _LEVELS[level] and entry.is_dir():
            found.append((int(match[2]), folder / name))
    return sorted(found)


def _files(folder: Path) -> list[Path]:
    names = [name for name, entry in _entries(folder) if not name.startswith(".") and entry.is_file()]
    return [folder / name for name in sorted(names, key=natural)]


def _entries(folder: Path) -> list[tuple[str, os.DirEntry[str]]]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append((entry.name, entry))
                _check_count(folder, len(found))
    except OSError as error:
        where = printable(str(folder))
        raise InputError(f"{where}: can't be read ({error.strerror}); check its permissions.") from error
    return found


def _check_count(folder: Path, count: int) -> None:
    if count > _MOST_FILES:
        raise InputError(f"{folder}: holds more than {_MOST_FILES:,} files; name a folder with fewer.")

"""Reading movies of any format in tests."""

import contextlib
import struct
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from hostile import within_budget

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie


def read_all(path: Path, **section: Any) -> np.ndarray:
    with Movie(path, MovieSection.model_validate(section)) as movie:
        return movie.read(slice(0, movie.shape[0]), movie.area)


def assert_reads(path: Path, expected: np.ndarray, **section: Any) -> None:
    """Pixels and type."""
    pixels = read_all(path, **section)
    assert pixels.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(pixels, expected)


def assert_parts(path: Path, expected: np.ndarray) -> None:
    """Whole frames, and parts of some."""
    assert_reads(path, expected)
    assert_reads(path, expected[1:4:2, 3:17, 5:22], frames=(1, 4, 2), roi=((3, 17), (5, 22)))
    assert_reads(
        path,
        expected[-1:, -1:],
        frames=(len(expected) - 1, None, None),
        roi=((-1 + expected.shape[1], None), (None, None)),
    )


def look_at(path: Path) -> None:
    """Open a movie and read it, as commands do; what can't be decoded is reported as InputError."""
    try:
        read_all(path)
    except OSError as error:
        raise InputError(str(error)) from error


def assert_survives(path: Path, content: bytes, places: Iterable[int], values: Iterable[int], word: str = "<i") -> None:
    """With each of ``values`` at each of ``places`` the file is read or refused, and that within the budget."""

    def look_at_all() -> None:
        for place, value in product(places, values):
            damaged = content[:place] + struct.pack(word, value) + content[place + struct.calcsize(word) :]
            path.write_bytes(damaged)
            with contextlib.suppress(InputError):
                look_at(path)

    raised = within_budget(look_at_all)
    path.write_bytes(content)
    assert raised is None, repr(raised)


def assert_cuts_are_noticed(path: Path, ends: list[int], expected: np.ndarray) -> None:
    """Cut at each of ``ends`` a file is refused, and read as far as its frames are complete where the message says so.

    Where nothing of its frames is cut off, it may be read as a whole.
    """
    content = path.read_bytes()
    for end in ends:
        path.write_bytes(content[:end])
        raised = within_budget(lambda: look_at(path))
        if raised is None:
            assert_reads(path, expected)
            continue
        assert isinstance(raised, InputError), repr(raised)
        if "--frames 0:" in str(raised):
            whole = int(str(raised).rpartition("--frames 0:")[2].rstrip("."))
            np.testing.assert_array_equal(read_all(path, frames=(0, whole, None)), expected[:whole])
    path.write_bytes(content)

"""Where the frames of a movie come from: one abstraction over files of any format."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError


@dataclass(frozen=True)
class Storage:
    """How the pixels lie in the files."""

    layout: str  # contiguous or chunks, of a virtual dataset those of its sources
    chunk: tuple[int, int, int] | None  # frames, rows, columns that are decoded together
    compression: str

    def __str__(self) -> str:
        chunk = "" if self.chunk is None else f" of {' x '.join(map(str, self.chunk))}"
        return f"{self.layout}{chunk}, {self.compression}"


@dataclass(frozen=True)
class Description:
    """What files say about their movie. A calibration is None where they don't state one that makes sense."""

    format: str
    shape: tuple[int, int, int]  # frames, rows, columns
    dtype: np.dtype[Any]  # in the machine's byte order
    pixel_size_nm: tuple[float, float] | None = None  # of rows and columns
    frame_time_s: float | None = None
    times_s: np.ndarray | None = None  # [frames] float64, where the files hold the time of each frame
    metadata: dict[str, Any] = field(default_factory=dict)  # of the files, as JSON can hold it
    notes: tuple[str, ...] = ()  # what a user should know, such as missing frames
    counts_per_electron: float | None = None  # of the detector
    diffraction: bool = False  # whether they state lengths of reciprocal space, so that these are no images


class FrameSource(ABC):
    """The frames of a movie in its files, unselected and uncorrected."""

    path: Path  # that the user named
    where: str  # for messages: the file, and the dataset in it
    dataset: str = ""  # in the file, where it holds several
    description: Description
    # Known once ``prepare`` was called:
    files: list[Path]  # that are read
    raw_files: Sequence[Path] = ()  # of them, files beside ``path`` that hold nothing but pixels
    storage: Storage
    unit: tuple[int, int, int]  # frames, rows and columns that are read together
    cache_bytes: int = 0  # that a library keeps for itself
    decodes_in_parallel: bool = True  # else one thread at a time
    reads_in_place: bool = False  # whether pixels reach their place without a copy
    is_open_in_writer: bool = False  # where that can be known

    @property
    def identity(self) -> tuple[object, ...]:
        """What distinguishes this movie from others in the same files."""
        return (self.dataset, self.description.shape, self.description.dtype.str)

    def complete(self, known: int) -> int:
        """How many leading frames have all their pixels in the files, where ``known`` are known to."""
        return self.description.shape[0]

    @abstractmethod
    def prepare(self, frames: slice, area: Area) -> None:
        """Make ready to read ``area`` of ``frames``.

        Raises InputError if files or pixels of that part are missing.
        """

    @abstractmethod
    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        """Read ``area`` of ``frames``, which may have a step, into ``place`` of ``pixels``, by default all of it.

        ``pixels`` is contiguous, of the described dtype. Raises OSError if a frame can't be decoded.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the files."""


def count_complete(complete: np.ndarray) -> int:
    """How many frames there are before the first that isn't ``complete`` [frames] bool."""
    cut = np.flatnonzero(~complete)
    return int(cut[0]) if cut.size else len(complete)


def check_complete(where: str, total: int, frames: slice, complete: np.ndarray) -> None:
    """Raise InputError if not all of ``frames``, of ``total`` in a file, are ``complete`` [frames] bool."""
    cut = np.flatnonzero(~complete)
    if cut.size:
        first = frames.start + int(cut[0]) * (frames.step or 1)
        remedy = f", or leave them out with --frames 0:{first}" if first else ""
        raise InputError(
            f"{where}: is cut off: of its {total} frames those from {first} on are not complete; copy it again{remedy}."
        )

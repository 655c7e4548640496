"""What a file of frames holds, in the terms that all formats share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.decoded_frames import DecodedFrames, Decoder
from hrtemvae_hpc.movie.frames import Description, FrameSource
from hrtemvae_hpc.movie.raw_frames import Placement, RawFrames

HEAD = 1024
_MOST_FRAMES = 2**24


@dataclass(frozen=True)
class Likeness:
    """What shows, without parsing it, that another file holds frames of the same shape, type, place and calibration.

    Such a file has as many bytes, and the ``decisive`` ones are the same. The rest may differ: pixels, times, names.
    """

    decisive: tuple[tuple[int, bytes], ...]  # where in the file, and what is there
    clock_at: tuple[slice, ...] = ()  # where to look for ``Stack.clock_s``, in this order
    clock: Callable[[bytes], float | None] = lambda _: None  # reads it there


@dataclass(frozen=True)
class Stack:
    """One or more frames of one file."""

    description: Description
    placement: Placement  # of no meaning if there is a decoder
    clock_s: float | None = None  # when the first frame was taken, in seconds from any instant common to such files
    likeness: Likeness | None = None  # None: each file must be parsed
    decoder: Decoder | None = None  # of frames that don't lie in the file as they are

    def open(self, path: Path, where: str) -> FrameSource:
        """The frames ready to be read; ``path`` and ``where`` are how the user and messages name them."""
        if self.decoder:
            return DecodedFrames(path, where, self.decoder, self.description)
        return RawFrames(path, where, self.placement, self.description)


@dataclass(frozen=True)
class Format:
    """A kind of file: how its first bytes or its name look, and what reads its header."""

    name: str
    recognised: Callable[[bytes, Path], bool]  # from the first ``HEAD`` bytes, and the name
    read: Callable[[Path], Stack]  # raises InputError


def one_after_another(path: Path, shape: tuple[int, int, int], dtype: np.dtype, offset: int, gap: int = 0) -> Placement:
    """Frames of ``shape`` in one file, from ``offset`` on, ``gap`` bytes apart.

    Raises InputError if not even one can be in the file, or there are more than any movie has.
    """
    size = path.stat().st_size
    return Placement([path], [size], even_offsets(path, shape, dtype, offset, size, gap), dtype)


def even_offsets(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, offset: int, size: int, gap: int = 0
) -> np.ndarray:
    """Where frames of ``shape`` begin in ``size`` bytes [frames] int64; raises as ``one_after_another`` does."""
    frame = shape[1] * shape[2] * dtype.itemsize
    if min(shape) < 0 or not 0 <= offset <= size - frame:
        raise InputError(f"{path}: is cut off or damaged: not even its first frame is complete; copy it again.")
    if shape[0] > _MOST_FRAMES or (frame + gap) * shape[0] > 2**62:
        raise InputError(f"{path}: claims to hold {shape[0]:,} frames and may be damaged; copy it again.")
    return offset + np.arange(shape[0], dtype=np.int64) * (frame + gap)

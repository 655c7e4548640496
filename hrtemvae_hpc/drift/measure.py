"""What is measured of a block of frames: independent of all other blocks, and small."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrtemvae_hpc.drift.consensus import consensus
from hrtemvae_hpc.fourier.shift import (
    REDUCED,
    Image,
    Patches,
    Spectrum,
    band_pass,
    find_shift,
    least_quality,
    shifted,
    spectrum_of,
)

Read = Callable[[int], np.ndarray]
_LARGEST_SIDE = 1024  # of a binned frame, pixels
_EXACT = 0.02  # pixels of a band-passed image: less of a shift needn't be undone before it is measured
_FRAMES, _BLOCKS = 8, 64  # the fewest frames in a block, the most blocks


class PatchShifts(NamedTuple):
    """The shift of each patch (float32 [patches, 3]: down, right, quality), and the quality of the whole image."""

    patches: NDArray[np.float32]
    quality: float


@dataclass(frozen=True)
class FrameMeasures:
    """What is known of a frame: its shift against the frame before, and against the sum of the block's frames before.

    Shifts in binned pixels; ``rings`` is the radial power as of ``band_pass``.
    """

    mean: float
    deviation: float
    rings: NDArray[np.float32]
    link: PatchShifts
    to_reference: PatchShifts


@dataclass(frozen=True)
class BlockMeasures:
    """The ``frames`` of a block and their sum, each moved to frame ``first`` of them; frames before are not in it.

    ``reference`` is band-passed, float16 [rows, columns].
    """

    binning: int
    frames: list[FrameMeasures]
    first: int
    reference: NDArray[np.float16]


@dataclass(frozen=True)
class Prepared:
    """A band-passed image, its spectrum and its patches."""

    image: Image
    spectrum: Spectrum
    patches: Patches

    @classmethod
    def of(cls, image: Image) -> "Prepared":
        """Take the spectrum of a band-passed image."""
        return cls(image, spectrum_of(image), Patches(image))

    def with_fresh_patches(self) -> "Prepared":
        """The same, without the spectra that its patches have kept."""
        return replace(self, patches=Patches(self.image))


def blocks(frames: int) -> list[range]:
    """The blocks that a movie is measured in. They depend on its number of ``frames`` alone."""
    size = max(_FRAMES, -(-frames // _BLOCKS))
    return [range(start, min(start + size, frames)) for start in range(0, frames, size)]


def measure_block(block: range, read: Read) -> BlockMeasures:
    """Measure the frames of ``block``; ``read(t)`` gives frame t [rows, columns], any integers or floats.

    Each is read once, and so is the frame before the first. Non-finite pixels are tolerated.
    """
    previous: Prepared | None = None
    reference: Reference | None = None
    first = 0
    frames: list[FrameMeasures] = []
    for t in range(max(0, block.start - 1), block.stop):
        raw = read(t)
        binning = binning_of(raw.shape)
        image = binned(raw, binning)
        filtered, rings = band_pass(image)
        frame = Prepared.of(filtered)
        if t in block:
            link = measure_shift(previous or frame, frame, (0.0, 0.0))
            if reference is None or reference.is_lost:
                reference, first = Reference(frame), len(frames)
            to_reference = reference.follow(frame)
            mean, deviation = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
            frames.append(FrameMeasures(mean, deviation, rings.astype(np.float32), link, to_reference))
        previous = frame
    assert reference is not None
    image = reference.sum
    return BlockMeasures(binning, frames, first, (image / max(1e-9, float(image.std()))).astype(np.float16))


def measure_shift(reference: Prepared, frame: Prepared, expected: tuple[float, float]) -> PatchShifts:
    """The shift of each patch of ``frame`` against ``reference``, which is ``expected`` nearby; quality 0 for noise."""
    shape, (y, x) = frame.image.shape, expected
    whole = find_shift(reference.spectrum, frame.spectrum, shape, (y / REDUCED, x / REDUCED))
    if whole.quality < least_quality(shape):
        return PatchShifts(np.zeros((len(reference.patches.corners), 3), np.float32), 0.0)
    patches = reference.patches.shifts(frame.patches, whole)
    # Tapered patches pull a shift to whole pixels. So what most share is undone, and what remains is measured.
    place, _ = consensus(patches[:, :2], patches[:, 2] ** 2)
    dy, dx = (p - round(w) for p, w in zip(place, whole[:2], strict=True))
    if patches[:, 2].any() and max(abs(dy), abs(dx)) > _EXACT:
        patches = reference.patches.shifts(Patches(shifted(frame.image, -dy, -dx)), whole)
        patches[:, :2] += np.float32(dy), np.float32(dx)
    patches[:, :2] *= REDUCED
    return PatchShifts(patches, whole.quality)


def binning_of(shape: tuple[int, ...]) -> int:
    """Pixels along each side of a frame of ``shape`` that are binned into one before it is measured."""
    return -(-max(shape) // _LARGEST_SIDE)


def binned(frame: np.ndarray, binning: int) -> Image:
    """Means of ``binning`` x ``binning`` pixels, float32; pixels that are not finite get the mean of the others."""
    if frame.dtype.kind == "f" and not (finite := np.isfinite(frame)).all():
        frame = np.where(finite, frame, frame[finite].mean(dtype=np.float64) if finite.any() else 0)
    rows, columns = (n // binning * binning for n in frame.shape)
    lines = frame[:rows:binning, :columns].astype(np.float32)
    for i in range(1, binning):
        lines += frame[i:rows:binning, :columns]
    total: Image = lines[:, ::binning].copy()
    for i in range(1, binning):
        total += lines[:, i::binning]
    total *= np.float32(1 / binning**2)
    return total


class Reference:
    """The sum of frames, each moved to the first of them; ``place`` is that of the last one that was found."""

    def __init__(self, frame: Prepared) -> None:
        self.sum = np.zeros_like(frame.image)
        self.place, self._balance = (0.0, 0.0), 0
        self._prepared = frame

    @property
    def is_lost(self) -> bool:
        """Whether more frames have nothing in common with the sum than have something."""
        return self._balance < 0

    def follow(self, frame: Prepared) -> PatchShifts:
        """Measure ``frame`` against the sum, to which it is then added."""
        found = measure_shift(self._prepared, frame, self.place)
        self._balance += 1 if found.quality else -1
        if found.quality:
            self.place, _ = consensus(found.patches[:, :2], found.patches[:, 2] ** 2)
            dy, dx = self.place
            self.sum += shifted(frame.image, -dy / REDUCED, -dx / REDUCED) * np.float32(found.quality)
            self._prepared = Prepared.of(self.sum)
        return found

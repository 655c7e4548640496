"""The segments of one file of micrographs: filtered, scaled, rotated, cut, and separated from background by fringes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.resample import Resampler, scaled_shape
from hrtemvae_hpc.scaling import LocalScaling
from hrtemvae_hpc.segments.cut_options import CutOptions
from hrtemvae_hpc.segments.micrographs import Micrograph, read_micrographs
from hrtemvae_hpc.segments.segment_file import LEVELS

_EXAMPLES = 8  # dropped segments of each file that are kept for the page
_BATCH = 2048


@dataclass(frozen=True)
class Cut:
    """Segments of one file, n of them kept, and how many were examined."""

    segments: np.ndarray  # [n, window, window] uint16
    strength: np.ndarray  # [n] float32
    period: np.ndarray  # [n] float32, pixels of the segment
    frame: np.ndarray  # [n] int32
    place: np.ndarray  # [n, 2] int32, first row and column after scaling and turning
    turned: np.ndarray  # [n] float32, degrees
    dropped: np.ndarray  # [m, window, window] uint16, examples
    dropped_strength: np.ndarray  # [m] float32
    pixel_size: np.ndarray  # [2] float64, nm per pixel as read and as cut, NaN where not known
    height: int  # rows after scaling, of the last image
    looked_at: int


class _Pool:
    """The ``most`` of all rows that are added, chosen at random, with no more of them in memory than needed."""

    def __init__(self, most: int, random: np.random.Generator) -> None:
        self._most = most
        self._random = random
        self._rows: list[tuple[np.ndarray, ...]] = []

    def add(self, *columns: np.ndarray) -> None:
        """Add rows, given by column; each gets a random number, and those with the smallest stay."""
        self._rows.append((self._random.random(len(columns[0])), *columns))
        if sum(len(rows[0]) for rows in self._rows) > 2 * self._most + _BATCH:
            self._rows = [self._chosen()]

    def _chosen(self) -> tuple[np.ndarray, ...]:
        joined = tuple(np.concatenate(column) for column in zip(*self._rows, strict=True))
        stay = np.sort(np.argsort(joined[0])[: self._most])
        return tuple(column[stay] for column in joined)

    def columns(self) -> tuple[np.ndarray, ...]:
        """The chosen rows, by column, in the order in which they were added."""
        return self._chosen()[1:]


def cut_file(path: Path, options: CutOptions, check: Callable[[], None] = lambda: None) -> Cut:
    """The segments of ``path`` with fringes, at most ``options.most`` of them, chosen at random.

    ``check`` is called between images and may raise. Raises InputError if the file can't be read, has no pixel
    size though scaling asks for it, or holds no segment that can be scaled to 0..1.
    """
    random = np.random.default_rng([options.seed, *path.name.encode()])
    kept, dropped, looked_at = _Pool(options.most, random), _Pool(_EXAMPLES, random), 0
    height, sizes = 0, (math.nan, math.nan)
    for image in read_micrographs(path, slice(*options.frames)):
        check()
        pixels, sizes = _scaled(image, path, options)
        height = len(pixels)
        for angle in (0.0, *random.uniform(0, 360, options.turns)):
            turned = pixels if angle == 0 else _turned(pixels, angle)
            for windows, places in _windows(turned, options):
                strength, period = find_fringes(windows)
                keep = strength > options.threshold
                looked_at += len(windows)
                count = int(keep.sum())
                kept.add(
                    _quantized(windows[keep]),
                    strength[keep].numpy(),
                    period[keep].numpy(),
                    np.full(count, image.frame, np.int32),
                    places[keep].numpy().astype(np.int32),
                    np.full(count, angle, np.float32),
                )
                dropped.add(_quantized(windows[~keep]), strength[~keep].numpy())
    if looked_at == 0:
        raise InputError(
            f"{path}: holds no segment of {options.window} x {options.window} finite pixels that differ in these "
            "frames; its images may be too small."
        )
    names = ("segments", "strength", "period", "frame", "place", "turned")
    chosen: dict[str, Any] = dict(zip(names, kept.columns(), strict=True))
    examples, their_strength = dropped.columns()
    return Cut(
        **chosen,
        dropped=examples,
        dropped_strength=their_strength,
        pixel_size=np.array(sizes),
        height=height,
        looked_at=looked_at,
    )


def _scaled(image: Micrograph, path: Path, options: CutOptions) -> tuple[Tensor, tuple[float, float]]:
    """Pixels after filters and scaling, and the pixel size before and after, NaN where not known."""
    pixels = torch.from_numpy(image.pixels)
    if options.clip_outliers:
        pixels = clip_outliers(pixels)
    if options.low_pass:
        pixels = low_pass(pixels)
    size = image.pixel_size_nm or options.assume_pixel_size
    if options.pixel_size is None:
        return pixels, (size or math.nan,) * 2
    if size is None:
        raise InputError(f"{path}: states no pixel size; give it with --assume-pixel-size to scale it.")
    height, width = pixels.shape
    try:
        shape = scaled_shape(height, width, size / options.pixel_size)
    except ValueError as error:
        raise InputError(
            f"{path}: can't be scaled from {size:.4g} to {options.pixel_size:.4g} nm per pixel: {error}."
        ) from error
    return Resampler(height, width, shape).whole(pixels), (size, options.pixel_size)


def _turned(pixels: Tensor, angle: float) -> Tensor:
    """``pixels`` rotated about their centre; what lay outside is NaN."""
    return torch.from_numpy(ndimage.rotate(pixels.numpy(), angle, order=3, cval=np.nan, reshape=True))


def _windows(pixels: Tensor, options: CutOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows [n, size, size] that have a scaled form, scaled to 0..1, and their first rows and columns [n, 2]."""
    size, stride = options.window, options.stride
    if min(pixels.shape) < size:
        return
    if options.scaling == "local":
        whole = Area.whole(*pixels.shape)
        pixels = LocalScaling(pixels.shape, size).apply(pixels, whole)
    windows = pixels.unfold(0, size, stride).unfold(1, size, stride)
    rows, columns = windows.shape[:2]
    places = torch.cartesian_prod(torch.arange(rows) * stride, torch.arange(columns) * stride).view(-1, 2)
    for batch in torch.split(places, _BATCH):
        chosen = windows[batch[:, 0] // stride, batch[:, 1] // stride]
        low, high = chosen.amin((1, 2), keepdim=True), chosen.amax((1, 2), keepdim=True)
        usable = ((high > low) & torch.isfinite(high) & torch.isfinite(low)).flatten()
        if usable.any():
            scaled = chosen if options.scaling == "local" else (chosen - low) / (high - low)
            yield scaled[usable], batch[usable]


def _quantized(segments: Tensor) -> np.ndarray:
    return (segments * LEVELS).round().numpy().astype(np.uint16)

"""The segments of one file of micrographs: filtered, scaled, turned, cut, and told from background by fringes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from torch import Tensor

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.fourier.fringes import FRINGE_THRESHOLD, find_fringes
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.resample import Resampler
from hrtemvae_hpc.segments.micrographs import Micrograph, read_micrographs

LEVELS = 65535  # segments are kept as uint16, 0..65535 for 0..1
_EXAMPLES = 8  # dropped segments of each file that are kept to be looked at
_BATCH = 2048


class CutOptions(BaseModel):
    """How micrographs become segments."""

    model_config = ConfigDict(frozen=True)

    window: int = Field(64, ge=8, description="rows and columns of a segment, pixels")
    stride: int = Field(32, ge=1, description="pixels between neighbouring segments")
    frames: tuple[int | None, int | None, int | None] = Field((None, None, None), description="frames of a stack")
    clip_outliers: bool = Field(False, description="set pixels above mean + 3.717 sigma to mean + 3.5 sigma")
    low_pass: bool = Field(False, description="Gaussian low-pass, sigma 0.25 cycles per pixel")
    pixel_size: float | None = Field(None, gt=0, description="scale all micrographs to so many nm a pixel")
    assume_pixel_size: float | None = Field(None, gt=0, description="nm a pixel of files that don't tell")
    turns: int = Field(0, ge=0, description="times that each micrograph is also cut after turning it by a random angle")
    threshold: float = Field(FRINGE_THRESHOLD, ge=0, description="fringe strength of a segment that is kept")
    most: int = Field(1000, ge=1, description="most segments kept of one file")
    seed: int = Field(0, ge=0, description="of the choice among segments and of the angles")


@dataclass(frozen=True)
class Cut:
    """Segments of one file, n of them kept, and how many were looked at."""

    segments: np.ndarray  # [n, window, window] uint16
    strength: np.ndarray  # [n] float32
    period: np.ndarray  # [n] float32, pixels of the segment
    frame: np.ndarray  # [n] int32
    place: np.ndarray  # [n, 2] int32, first row and column after scaling and turning
    turned: np.ndarray  # [n] float32, degrees
    dropped: np.ndarray  # [m, window, window] uint16, examples
    dropped_strength: np.ndarray  # [m] float32
    pixel_size: np.ndarray  # [2] float64, nm a pixel as read and as cut, NaN where not known
    height: int  # rows after scaling, of the last image
    looked_at: int


def cut_file(path: Path, options: CutOptions) -> Cut:
    """The segments of ``path`` with fringes, at most ``options.most`` of them, chosen at random.

    Raises InputError where the file can't be read, has no pixel size though scaling asks for it, or is smaller than
    a segment.
    """
    random = np.random.default_rng([options.seed, *path.name.encode()])
    images = list(read_micrographs(path, slice(*options.frames)))
    if not images:
        raise InputError(f"{path}: has no frame in the range that was asked for.")
    quota = math.ceil(2 * options.most / len(images))
    pieces, dropped, looked_at = [], [], 0
    for image in images:
        pixels, sizes = _scaled(image, path, options)
        angles = [0.0, *random.uniform(0, 360, options.turns)]
        for angle in angles:
            turned = pixels if angle == 0 else _turned(pixels, angle)
            for windows, places in _windows(turned, options):
                strength, period = find_fringes(windows)
                looked_at += len(windows)
                keep = strength > options.threshold
                index = torch.from_numpy(random.permutation(int(keep.sum()))[:quota])
                told = (torch.full((len(index),), image.frame), torch.full((len(index),), angle))
                chosen = (windows, strength, period, places)
                pieces.append((*(values[keep][index] for values in chosen), *told))
                dropped.append((windows[~keep][:_EXAMPLES], strength[~keep][:_EXAMPLES]))
    if not pieces:
        raise InputError(f"{path}: {len(images[0].pixels)} rows are smaller than a segment of {options.window} pixels.")
    segments, strength, period, places, frames, turned_by = (torch.cat(p) for p in zip(*pieces, strict=True))
    chosen_rows = torch.from_numpy(np.sort(random.permutation(len(segments))[: options.most]))
    left, left_strength = (torch.cat(p) for p in zip(*dropped, strict=True))
    examples = torch.from_numpy(random.permutation(len(left))[:_EXAMPLES])
    return Cut(
        segments=_quantized(segments[chosen_rows]),
        strength=strength[chosen_rows].numpy(),
        period=period[chosen_rows].numpy(),
        frame=frames[chosen_rows].numpy().astype(np.int32),
        place=places[chosen_rows].numpy().astype(np.int32),
        turned=turned_by[chosen_rows].numpy().astype(np.float32),
        dropped=_quantized(left[examples]),
        dropped_strength=left_strength[examples].numpy(),
        pixel_size=np.array(sizes),
        height=pixels.shape[0],
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
        raise InputError(f"{path}: tells no pixel size; give it with --assume-pixel-size to scale it.")
    height, width = pixels.shape
    return Resampler(height, width, size / options.pixel_size).whole(pixels), (size, options.pixel_size)


def _turned(pixels: Tensor, angle: float) -> Tensor:
    """``pixels`` turned about their centre; what lay outside is NaN."""
    return torch.from_numpy(ndimage.rotate(pixels.numpy(), angle, order=3, cval=np.nan, prefilter=False, reshape=True))


def _windows(pixels: Tensor, options: CutOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows [n, size, size] that have a scaled form, scaled to 0..1, and their first rows and columns [n, 2]."""
    size, stride = options.window, options.stride
    if min(pixels.shape) < size:
        return
    windows = pixels.unfold(0, size, stride).unfold(1, size, stride)
    rows, columns = windows.shape[:2]
    places = torch.cartesian_prod(torch.arange(rows) * stride, torch.arange(columns) * stride).view(-1, 2)
    for batch in torch.split(places, _BATCH):
        chosen = windows[batch[:, 0] // stride, batch[:, 1] // stride]
        low, high = chosen.amin((1, 2), keepdim=True), chosen.amax((1, 2), keepdim=True)
        usable = ((high > low) & torch.isfinite(high) & torch.isfinite(low)).flatten()
        if usable.any():
            yield ((chosen - low) / (high - low))[usable], batch[usable]


def _quantized(segments: Tensor) -> np.ndarray:
    return (segments * LEVELS).round().numpy().astype(np.uint16)

"""The segments of a training: which ones make a batch, and how they are augmented.

Order, augmentation and sampling are drawn from the seed, the epoch and the step alone, for the whole batch on every
rank: they are the same for any number of ranks, and after a training resumed from a checkpoint.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.segments.segment_file import LEVELS, SegmentFile, open_segments
from hrtemvae_hpc.training.train_config import AugmentationSection

_AT_ONCE = 512


class Segments:
    """The segments of several files in one row, mapped from disk."""

    def __init__(self, paths: Sequence[Path], window: int) -> None:
        """Raises InputError if a file isn't one, or its segments don't fit ``window`` or each other."""
        if not paths:
            raise InputError("no segments to train on; name files of `hrtemvae segments` in data.segments.")
        self.files: list[SegmentFile] = [open_segments(path) for path in paths]
        for file in self.files:
            if file.window != window:
                raise InputError(
                    f"{file.path}: segments of {file.window} x {file.window} pixels, but the network's window is "
                    f"{window}; cut them with --window {window}, or set network.window."
                )
            if file.scaling != self.files[0].scaling:
                raise InputError(
                    f"{file.path}: its segments are scaled by {file.scaling}, those of {self.files[0].path} by "
                    f"{self.files[0].scaling}; cut both with the same --scaling."
                )
        self._starts = np.cumsum([0, *(len(f.segments) for f in self.files)])
        held_out = np.concatenate([f.validation for f in self.files])
        self.training = np.flatnonzero(~held_out)
        self.validation = np.flatnonzero(held_out)
        where = ", ".join(str(p) for p in paths)
        if not len(self.validation):
            raise InputError(f"{where}: no segment is for validation; cut them with a larger --validation.")
        if len(self.training) < 2:
            raise InputError(f"{where}: {len(self.training)} segments to train on are too few; cut more micrographs.")

    @property
    def scaling(self) -> Scaling:
        """How the pixels of all files were scaled."""
        return self.files[0].scaling

    @property
    def sha256(self) -> list[str]:
        """What the files hold."""
        return [f.sha256 for f in self.files]

    def load(self, which: np.ndarray) -> Tensor:
        """Segments [n, 1, window, window] of index ``which`` [n], float32 in 0..1."""
        window = self.files[0].window
        loaded = np.empty((len(which), 1, window, window), np.float32)
        file_of = np.searchsorted(self._starts, which, side="right") - 1
        for number in np.unique(file_of):
            rows = np.flatnonzero(file_of == number)
            loaded[rows, 0] = self.files[number].segments[which[rows] - self._starts[number]]
        return torch.from_numpy(loaded / np.float32(LEVELS))

    def batches(self, which: np.ndarray) -> Iterator[Tensor]:
        """``which`` in batches, for evaluation."""
        for start in range(0, len(which), _AT_ONCE):
            yield self.load(which[start : start + _AT_ONCE])

    def average(self, which: np.ndarray) -> Tensor:
        """The mean [1, window, window] of segments ``which``, float32."""
        total = torch.stack([x.double().sum(0) for x in self.batches(which)]).sum(0)
        return (total / len(which)).float()

    @property
    def pixel_size_nm(self) -> float | None:
        """The pixel size of all files, None if one is unknown or they differ by more than 2%."""
        sizes = [f.pixel_size_nm for f in self.files]
        known = [s for s in sizes if s is not None]
        same = len(known) == len(sizes) and max(known) <= 1.02 * min(known)
        return float(np.mean(known)) if same else None


def segments_for(model: Model, path: Path) -> Segments:
    """The segments of a file; raises InputError as ``Segments``, and if they aren't scaled as ``model`` needs them."""
    segments = Segments([path], model.architecture.window)
    if (segments.scaling == "local") != (model.scaling == "local"):
        raise InputError(
            f"{path}: its segments are scaled by {segments.scaling}, but model {model.name} was trained on pixels "
            f"scaled by {model.scaling}; cut them with --scaling {'local' if model.scaling == 'local' else 'window'}."
        )
    return segments


def generator(device: torch.device, *seeds: int) -> torch.Generator:
    """Random numbers that depend on ``seeds`` alone."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(seed)


def epoch_order(segments: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """``segments`` in the order of ``epoch``: each once."""
    return np.random.default_rng([seed, epoch]).permutation(segments)


def share(batch: int, rank: int, size: int) -> slice:
    """The part of a batch of ``batch`` segments that ``rank`` of ``size`` computes; may be empty."""
    return slice(batch * rank // size, batch * (rank + 1) // size)


def augment(
    x: Tensor, of_batch: int, part: slice, section: AugmentationSection, random: torch.Generator, scaling: Scaling
) -> Tensor:
    """``x`` [n, 1, size, size], the ``part`` of a batch of ``of_batch`` segments, augmented as ``section`` asks.

    With noise, segments are scaled to 0..1 again; those scaled locally are cut off there, as pixels of a movie are.
    Every number is drawn for the whole batch. Returns float32 in 0..1.
    """
    device = x.device

    def draw() -> Tensor:
        return torch.rand(of_batch, 1, 1, 1, generator=random, device=device)[part]

    if section.turn:
        turns = torch.randint(4, (of_batch,), generator=random, device=device)[part]
        for k in (1, 2, 3):
            x = torch.where((turns == k)[:, None, None, None], torch.rot90(x, k, (2, 3)), x) if len(x) else x
    if section.flip:
        x = torch.where(draw() < 0.5, x.flip(3), x)
    if section.contrast:
        x = x ** torch.exp(section.contrast * (2 * draw() - 1))
    if section.noise:
        grain = torch.randn((of_batch, *x.shape[1:]), generator=random, device=device)[part]
        x = x + grain * section.noise * draw()
        if scaling == "local":
            return x.clamp(0, 1)
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = (x - low) / (high - low)
    return x

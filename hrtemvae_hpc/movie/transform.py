"""What happens to pixels between the frame of a movie and the patches that windows are cut from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.resample import Resampler, source_area
from hrtemvae_hpc.pixels import floating
from hrtemvae_hpc.scaling import LocalScaling

_AT_ONCE = 2**22  # bytes of the pixels that are transformed together; several times as many are needed for it


@dataclass(frozen=True)
class Transform:
    """Resampling, then scaling each pixel by those around it; either may be left out."""

    resampler: Resampler | None = None
    local: LocalScaling | None = None

    def __bool__(self) -> bool:
        """Whether anything happens."""
        return self.resampler is not None or self.local is not None

    def shown(self, area: Area) -> Area:
        """The area of the movie's frame that the patch ``area`` shows."""
        return source_area(self.resampler, area)

    def source(self, area: Area) -> Area:
        """The area of the movie's frame that the patch ``area`` is made of; larger where pixels around it matter."""
        return self.shown(self._around(area))

    def dtype(self, pixels: np.dtype) -> np.dtype:
        """The type of patches that are made of ``pixels``."""
        if self.local:
            return np.dtype(np.float32)
        return floating(pixels) if self.resampler else pixels

    def working_bytes(self, frames: int, area: Area, pixels: np.dtype) -> int:
        """Bytes that making the patch ``area`` of ``frames`` takes, the patch included; 0 if nothing happens."""
        if not self:
            return 0
        source, around = self.source(area), self._around(area)
        at_once = min(frames, _frames_at_once(source))
        working = at_once * (8 * 3 * source.pixels + 8 * 2 * around.pixels) + 8 * 4 * around.pixels
        return frames * area.pixels * self.dtype(pixels).itemsize + working

    def apply(self, pixels: np.ndarray, unknown: np.ndarray | None, area: Area) -> np.ndarray:
        """The patch ``area`` [frames, rows, columns], from the ``pixels`` of its source in the movie's frames.

        ``unknown`` [frames, rows, columns] bool says which of them don't count when others are scaled by them.
        """
        patch = np.empty((len(pixels), area.height, area.width), self.dtype(pixels.dtype))
        at_once = _frames_at_once(self.source(area))
        for start in range(0, len(pixels), at_once):
            part = slice(start, start + at_once)
            some = pixels[part].astype(floating(pixels.dtype))
            if unknown is not None and self.local:
                some[unknown[part]] = np.nan
            patch[part] = self._apply(torch.from_numpy(some), area).numpy()
        return patch

    def _apply(self, pixels: Tensor, area: Area) -> Tensor:
        if self.resampler:
            pixels = self.resampler.apply(pixels, self._around(area))
        return self.local.apply(pixels, area) if self.local else pixels

    def _around(self, area: Area) -> Area:
        return self.local.source(area) if self.local else area


UNCHANGED = Transform()


def _frames_at_once(source: Area) -> int:
    return max(1, _AT_ONCE // (8 * source.pixels))

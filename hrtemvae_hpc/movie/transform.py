"""What happens to pixels between the frame of a movie and the patches that windows are cut from."""

from dataclasses import dataclass

from torch import Tensor

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.resample import Resampler, source_area
from hrtemvae_hpc.patch import AT_ONCE
from hrtemvae_hpc.scaling import LocalScaling


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

    def working_bytes(self, frames: int, area: Area) -> int:
        """Bytes that ``frames`` of the patch ``area`` take on a CPU besides their source; 0 if nothing happens."""
        if not self:
            return 0
        around, at_once = self._around(area), min(frames, AT_ONCE)
        # The patch and its pieces; floating copies of the source, some of the resampled pixels, and sums of one frame.
        working = at_once * (2 * self.source(area).pixels + 3 * around.pixels) + 8 * around.pixels
        return 8 * (2 * frames * area.pixels + working)

    def apply(self, pixels: Tensor, area: Area) -> Tensor:
        """The patch ``area`` [..., rows, columns] from floating ``pixels`` of its source in the movie's frames."""
        if self.resampler:
            pixels = self.resampler.apply(pixels, self._around(area))
        return self.local.apply(pixels, area) if self.local else pixels

    def _around(self, area: Area) -> Area:
        return self.local.source(area) if self.local else area


UNCHANGED = Transform()

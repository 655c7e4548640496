"""Which outputs of a convolution windows share, along one axis.

Outputs that neither see padding nor anything that saw it are inner: windows that see the same pixels, scaled alike,
have them in common, one place every few pixels of the frame. Those at the border are each window's own.
"""

import math
from dataclasses import dataclass

from hrtemvae_hpc.model.architecture import Architecture


@dataclass(frozen=True)
class Level:
    """The outputs of one layer along an axis of a window; the pixels are level 0."""

    size: int
    inner: range  # outputs that are shared
    step: int  # places from one window to the next
    hop: int  # places from one output of a window to the next
    starts: tuple[int, ...]  # where the kernel of each output begins among the outputs below, before the first or not
    seen: tuple[range, ...]  # outputs below that each output sees, as far as they exist

    @property
    def border(self) -> list[int]:
        """Outputs that are not shared."""
        return [i for i in range(self.size) if i not in self.inner]

    def part(self, output: int) -> slice:
        """The part of the kernel with which ``output`` sees anything."""
        start = self.starts[output]
        return slice(self.seen[output].start - start, self.seen[output].stop - start)


def levels(architecture: Architecture, step: int) -> list[Level]:
    """The pixels and the layers of ``architecture``, for windows every ``step`` pixels."""
    a = architecture
    stack = [Level(a.window, range(a.window), step, 1, (), ())]
    total = 1
    for stride, (before, _), size in zip(a.strides, a.pads, a.sizes[1:], strict=True):
        below = stack[-1]
        starts = tuple(i * stride - before for i in range(size))
        seen = tuple(range(max(0, s), min(below.size, s + a.kernel)) for s in starts)
        whole = [i for i, s in enumerate(seen) if len(s) == a.kernel]
        inner = [i for i in whole if seen[i][0] in below.inner and seen[i][-1] in below.inner]
        shared = range(inner[0], inner[-1] + 1) if inner else range(0)
        total *= stride
        pitch = math.gcd(step, total)
        stack.append(Level(len(seen), shared, step // pitch, total // pitch, starts, seen))
    return stack

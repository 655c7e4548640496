"""All convolutions, computed once per frame and shared by all windows that overlap, if a frame has one scale.

With one scale for the whole frame, two windows that see the same pixels have the same outputs, in every layer, except
where "same" padding puts zeros outside of a window. So each layer has several maps, along y and along x alike:

    inner       outputs that neither see padding nor anything that saw it: one place every `pitch` pixels of the frame,
                however many windows it lies in
    border i    output i of a window, made of the part of the kernel inside: one place for each window

    layer 1 of a window     i - - - - - - - b       - along x inner: a row of places, shared by the windows of a row
                            | + + + + + + + |       + inner along both: shared by all windows
                            b - - - - - - - b       b, i corners: a place for each window

An output at the border is made of the outputs at the border and the inner outputs below it, which are gathered for all
windows and convolved as one. For 64 pixels, a step of 8 and the published layers, a window of a large frame costs 36
outputs of the first layer instead of 1,024, then 16, 9 and 9 instead of 256, 64 and 16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import dense
from hrtemvae_hpc.windows.levels import Level, levels

_INNER = -1
Maps = dict[tuple[int, int], Tensor]  # by kind along y and x: _INNER, or the number of an output at the border


def shares_all(architecture: Architecture, step: int) -> bool:
    """Whether windows every ``step`` pixels need fewer products here than each by itself.

    Not if they lie far apart, or so that deep layers have places at every few pixels (steps of 9 or 50).
    """
    shared, alone, inputs = 0, 0, 1
    for level, outputs in zip(levels(architecture, step)[1:], architecture.channels, strict=True):
        places = level.step * bool(level.inner) + len(level.border)
        shared += places**2 * inputs * outputs
        alone += level.size**2 * inputs * outputs
        inputs = outputs
    return shared < alone


class SharedConvolutions:
    """The convolutions of an encoder, for windows every ``step`` pixels of frames that have one scale."""

    def __init__(self, encoder: Encoder, step: int) -> None:
        """Everything is computed on the device and in the type of ``encoder``."""
        a = self._architecture = encoder.architecture
        self._encoder = encoder
        self._step = step
        self._levels = levels(a, step)
        self._weights: list[dict[tuple[int, int], Tensor]] = []  # of each kind of outputs, by layer
        for layer, above in enumerate(self._levels[1:]):
            parts = {_INNER: slice(0, a.kernel)} | {i: above.part(i) for i in above.border}
            kernel: Tensor = encoder.conv[layer].weight.detach()  # type: ignore[operator]
            kinds = _kinds(above)
            self._weights.append({(y, x): _laid_out(kernel, parts, y, x) for y in kinds for x in kinds})

    def working_bytes(self, frames: int, rows: int, columns: int) -> int:
        """Bytes that ``rows`` x ``columns`` windows of ``frames`` frames take: the first layer and a copy of it."""
        level = self._levels[1]
        places = [level.size + n * (level.step + len(level.border)) for n in (rows, columns)]
        return 4 * 2 * frames * places[0] * places[1] * self._architecture.channels[0]

    def windows(self, frames: Tensor) -> Tensor:
        """The last layer's output for all windows of ``frames`` [n, rows, columns], which are scaled to 0..1.

        Returns [n * windows, channels, size, size], channels last in memory.
        """
        size = self._architecture.window
        counts = tuple((length - size) // self._step + 1 for length in frames.shape[1:])
        maps: Maps = {(_INNER, _INNER): frames[..., None]}
        for layer in range(len(self._weights)):
            kinds = _kinds(self._levels[layer + 1])
            maps = {(y, x): self._outputs(layer, maps, y, x, counts) for y in kinds for x in kinds}
        last = self._levels[-1]
        every = range(last.size)
        cut = torch.stack([_pick(maps, last, y, x, counts) for y in every for x in every], 3)
        return cut.view(-1, last.size, last.size, cut.shape[-1]).permute(0, 3, 1, 2)

    def _outputs(self, layer: int, maps: Maps, y: int, x: int, counts: tuple[int, ...]) -> Tensor:
        """The map of one kind of outputs [n, places or windows, places or windows, channels] of a layer."""
        below, above = self._levels[layer : layer + 2]
        seen = above.seen
        n, stride, hop = len(next(iter(maps.values()))), below.step // above.step, below.hop
        weight = self._weights[layer][y, x]
        bias: Tensor = self._encoder.conv[layer].bias  # type: ignore[assignment]
        if y != _INNER and x != _INNER:
            taps = torch.stack([_pick(maps, below, i, j, counts) for i in seen[y] for j in seen[x]], 3)
            taps = taps.view(-1, weight.shape[1])  # rows x columns x channels of the kernel
            return self._activate(layer, dense(taps, weight, bias).view(n, *counts, -1))
        first = (seen[above.inner[0]][0] - below.inner[0]) * hop  # the place that the first inner output sees first
        if y == x:
            return self._activate(layer, _convolve(maps[y, x][:, first:, first:], weight, bias, stride, hop))
        # Along y as along x: lines of places, a few side by side for the windows of a row or column.
        if x == _INNER:
            lines = torch.stack([_pick(maps, below, i, None, counts) for i in seen[y]], 2)
        else:
            lines = torch.stack([_pick(maps, below, None, j, counts).transpose(1, 2) for j in seen[x]], 2)
        outputs = _convolve(lines[:, :, :, first:].flatten(0, 1), weight, bias, (1, stride), (1, hop))
        outputs = self._activate(layer, outputs).view(*lines.shape[:2], -1, len(weight))
        return outputs if x == _INNER else outputs.transpose(1, 2)

    def _activate(self, layer: int, x: Tensor) -> Tensor:
        return self._encoder.activate(layer, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _kinds(level: Level) -> list[int]:
    return [_INNER, *level.border] if level.inner else level.border


def _laid_out(kernel: Tensor, parts: dict[int, slice], y: int, x: int) -> Tensor:
    """The part of ``kernel`` [outputs, inputs, rows, columns] that outputs ``y`` and ``x`` see, laid out for speed.

    For corners: [outputs, rows * columns * inputs]. For a column: with rows and columns exchanged.
    """
    part = kernel[:, :, parts[y], parts[x]]
    if y != _INNER and x != _INNER:
        return part.permute(0, 2, 3, 1).flatten(1).contiguous()
    if x != _INNER:
        part = part.transpose(2, 3)
    # A kernel of one channel must not have its channels last: PyTorch 2.13 gets narrow outputs wrong then.
    return part.contiguous(memory_format=torch.contiguous_format if part.shape[1] == 1 else torch.channels_last)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int | tuple[int, int], hop: int | tuple[int, int]
) -> Tensor:
    """``x`` [n, rows, columns, channels] convolved without padding, contiguous."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, 0, hop).permute(0, 2, 3, 1).contiguous()


def _pick(maps: Maps, level: Level, y: int | None, x: int | None, counts: tuple[int, ...]) -> Tensor:
    """Outputs ``y``, ``x`` of all windows [n, windows, windows, channels]; None: all inner places along that axis."""
    kinds, places = [], []
    for output, count in zip((y, x), counts, strict=True):
        if output is None:
            kinds.append(_INNER)
            places.append(slice(None))
        elif output in level.inner:
            first = (output - level.inner[0]) * level.hop
            kinds.append(_INNER)
            places.append(slice(first, first + (count - 1) * level.step + 1, level.step))
        else:
            kinds.append(output)
            places.append(slice(None))
    return maps[kinds[0], kinds[1]][:, places[0], places[1]]

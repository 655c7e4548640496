"""Convolutions after the first, shared by windows that overlap and have one scale.

A window's scale is its least and its largest pixel, and most neighbours hold the same two. Windows one below the other
with one scale are a run. What two windows of a run have in common, they need only once, in every layer: the inner lines
of outputs, which saw no padding above or below a window. So each layer of a run is computed as

    two windows of a run        . . . . . .   lines at the border, of each window for itself
                                + + + + + +
                                + + + + + + . . . . . .
        + inner lines, of       + + + + + + + + + + + +
          the run as a whole    + + + + + + + + + + + +
                                . . . . . . + + + + + +
                                            + + + + + +
                                            . . . . . .

    lines of the run        a convolution of the lines below, which has no padding along y
    lines at the border     a convolution of the lines below that each sees, gathered in a strip of the kernel's height

with "same" padding along x, as windows of a run lie at one place there. A layer shares its lines as long as windows lie
whole numbers of lines apart; the lines of each window are put together for the layers that follow.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import Layers
from hrtemvae_hpc.windows.levels import Level, levels
from hrtemvae_hpc.windows.plain import PlainLayers
from hrtemvae_hpc.windows.shared import FAINT, Convolved, SharedFirstLayer
from hrtemvae_hpc.windows.workspace import Workspace

_INNER, _BORDER, _PADDING = range(3)  # kinds of lines
_AT_ONCE = 32  # windows that go through the layers before the next ones do: they stay in the cache of a core


class SharedLayers:
    """The first ``depth`` convolutions of an encoder with their activations, on a CPU."""

    def __init__(self, exact: Encoder, encoder: Encoder, layers: Layers, step: int) -> None:
        """``exact`` is ``encoder`` in float32; results are of the type of ``encoder``, whose layers ``layers`` are."""
        a = self._architecture = encoder.architecture
        self._layers, self._step = layers, step
        self._levels = levels(a, step)
        self.depth = 1
        while self.depth < len(a.channels) and _shares(self._levels[self.depth + 1]):
            self.depth += 1
        self._plain = PlainLayers(encoder, step, self.depth)
        self._first = SharedFirstLayer(exact, self._levels[1], step) if self._levels[1].inner else None
        self._dtype: torch.dtype = encoder.conv[0].weight.dtype  # type: ignore[assignment]
        # Lines below that each line at the border of a layer sees, and all lines that a window has in the end.
        self._seen = [
            np.array([_line(below, above.starts[i] + k) for i in above.border for k in range(a.kernel)])
            for below, above in pairwise(self._levels)
        ]
        last = self._levels[self.depth]
        self._whole = np.array([_line(last, i) for i in range(last.size)])
        self._memory = Workspace()

    def working_bytes(self, frames: int, rows: int, columns: int) -> int:
        """Bytes that ``rows`` x ``columns`` windows of ``frames`` frames take, their outputs included."""
        channels, first, last = self._architecture.channels, self._levels[1], self._levels[self.depth]
        places = [first.size + n * (first.step + len(first.border)) for n in (rows, columns)]
        shared = places[0] * places[1] * channels[0] + rows * columns * last.size**2 * channels[self.depth - 1]
        sizes = [level.size**2 * c for level, c in zip(self._levels[1:], channels, strict=True)]
        return 4 * (frames * shared + max(_AT_ONCE, rows) * 3 * max(sizes))  # lines, strips, and the layer they give

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``frames`` float32 or float64, finite, counted from about its least pixel; ``low``, ``high`` [n, windows] of the
        same type, high > low. Returns the numbers of the windows, counted through all frames, and in this order their
        outputs [n * windows, channels, size, size], channels last in memory; a thread's next call overwrites these.
        """
        if self._first is None:
            return self._plain.windows(frames, low, high)
        shape = len(frames), *((n - self._architecture.window) // self._step + 1 for n in frames.shape[1:])
        scales = torch.stack((low, high), -1).view(*shape, 2).numpy()
        faint = high >= FAINT * (high - low)
        convolved = self._first.convolved(frames.float())
        size, channels = self._levels[self.depth].size, self._architecture.channels[self.depth - 1]
        outputs = self._memory.empty("outputs", (low.numel(), size, size, channels), self._dtype)
        numbers = np.empty(low.numel(), int)
        done = 0
        for length, runs in _runs(scales, faint.view(shape).numpy(), shape[1] if self.depth > 1 else 1).items():
            at_once = max(1, _AT_ONCE // length)
            for piece in (runs[start : start + at_once] for start in range(0, len(runs), at_once)):
                inner, border = self._first_lines(self._first, convolved, piece, scales, length)
                for layer in range(1, self.depth):
                    inner, border = self._next_lines(layer, inner, border)
                each = (piece[:, None] + np.arange(length)[:, None] * (0, 1, 0)).reshape(-1, 3)
                now = slice(done, done + len(each))
                _gather(*_raw(inner, border, outputs[now]), self._whole, self._levels[self.depth].step)
                numbers[now] = np.ravel_multi_index(tuple(each.T), shape)
                done = now.stop
        for some in faint.flatten().nonzero()[:, 0].split(_AT_ONCE):  # type: ignore[no-untyped-call]
            now = slice(done, done + len(some))
            outputs[now] = self._plain.some(frames, low, high, some).permute(0, 2, 3, 1)
            numbers[now] = some
            done = now.stop
        return torch.from_numpy(numbers), outputs.permute(0, 3, 1, 2)

    def _first_lines(
        self, first: SharedFirstLayer, convolved: Convolved, runs: np.ndarray, scales: np.ndarray, length: int
    ) -> tuple[Tensor, Tensor]:
        """The first layer: inner lines [runs, lines, size, channels], border [runs, length, lines, size, channels]."""
        level = self._levels[1]
        line = level.size, self._architecture.channels[0]
        lines = len(level.inner) + (length - 1) * (level.step // level.hop)
        inner = self._memory.empty("inner", (len(runs), lines, *line), self._dtype)
        border = self._memory.empty("border", (len(runs), length, len(level.border), *line), self._dtype)
        raw = torch.uint16 if self._dtype == torch.bfloat16 else self._dtype
        first.fill(convolved, runs, scales[tuple(runs.T)], inner.view(raw).numpy(), border.view(raw).numpy())
        return inner, border

    def _next_lines(self, layer: int, inner: Tensor, border: Tensor) -> tuple[Tensor, Tensor]:
        """The same of ``layer``, given those of the layer below."""
        below, above = self._levels[layer : layer + 2]
        runs, length, _, *line = border.shape
        if above.border:
            shape = runs * length * len(above.border), self._architecture.kernel, *line
            strips = self._memory.empty("strips", shape, self._dtype)
            _gather(*_raw(inner, border, strips), self._seen[layer], below.step)
            border = self._convolve(layer, strips)
        first = above.seen[above.inner[0]][0] - below.inner[0]
        inner = self._convolve(layer, inner[:, first:])
        return inner, border.reshape(runs, length, len(above.border), *inner.shape[2:])

    def _convolve(self, layer: int, lines: Tensor) -> Tensor:
        """``lines`` [n, lines, size, channels] convolved with no padding along y, contiguous."""
        return self._layers.convolve(layer, lines.permute(0, 3, 1, 2), pad_y=False).permute(0, 2, 3, 1).contiguous()


def _shares(level: Level) -> bool:
    """Whether two windows of a run that lie next to each other have lines of this layer in common."""
    return level.hop == 1 and level.step < len(level.inner)


def _runs(scales: np.ndarray, faint: np.ndarray, longest: int) -> dict[int, np.ndarray]:
    """Runs of windows, by length: the frames, rows and columns [runs, 3] of their first windows.

    ``scales`` [frames, rows, columns, 2]; ``faint`` [frames, rows, columns] windows are in no run.
    """
    begins = np.ones(faint.shape, bool)
    if longest > 1:
        begins[:, 1:] = (scales[:, 1:] != scales[:, :-1]).any(-1) | faint[:, 1:] | faint[:, :-1]
    down = begins.transpose(0, 2, 1)  # columns one after the other, each from top to bottom
    first = np.flatnonzero(down)
    lengths = np.diff(first, append=down.size)
    frame, column, row = np.unravel_index(first, down.shape)
    runs, clear = np.stack((frame, row, column), 1), ~faint[frame, row, column]
    return {int(length): runs[clear & (lengths == length)] for length in np.unique(lengths[clear])}


def _line(level: Level, output: int) -> tuple[int, int]:
    """Where line ``output`` of a window is: its kind and its place among those of this kind."""
    if output in level.inner:
        return _INNER, output - level.inner[0]
    return (_BORDER, level.border.index(output)) if 0 <= output < level.size else (_PADDING, 0)


def _raw(*lines: Tensor) -> list[np.ndarray]:
    """Contiguous ``lines`` [..., size, channels] as bytes [..., bytes of a line]."""
    return [x.flatten(-2).view(torch.uint8).numpy() for x in lines]


@compiled(fastmath=set())
def _gather(inner, border, out, wanted, step):  # type: ignore[no-untyped-def]
    """Write the lines ``wanted`` [n, 2], their kinds and places, of each window to ``out`` [..., bytes of a line].

    ``inner`` [runs, lines, bytes], ``border`` [runs, length, lines, bytes]; ``step`` inner lines from one window of a
    run to the next.
    """
    lines = out.reshape(-1, len(wanted), out.shape[-1])
    length = border.shape[1]
    for n in range(len(lines)):
        run, window = n // length, n % length
        for i in range(len(wanted)):
            kind, place = wanted[i]
            if kind == _PADDING:
                lines[n, i] = 0
                continue
            line = inner[run, window * step + place] if kind == _INNER else border[run, window, place]
            target = lines[n, i]
            for q in range(len(target)):  # an assignment of slices looks whether they overlap, six times slower
                target[q] = line[q]

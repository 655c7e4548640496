"""The first convolutions, shared by the windows of a run: neighbours in a line that have one scale.

What two such windows both see is needed only once, in every layer: the inner lines of outputs, which saw no padding
before or after a window. So each layer of a run is computed as

    two windows of a run        . . . . . .   lines at the border, of each window for itself
                                + + + + + +
                                + + + + + + . . . . . .
        + inner lines, of       + + + + + + + + + + + +
          the run as a whole    + + + + + + + + + + + +
                                . . . . . . + + + + + +
                                            + + + + + +
                                            . . . . . .

    inner lines             a convolution of the inner lines below, without padding before and after
    lines at the border     a convolution of the lines below that each sees, gathered in a strip of the kernel's height

with "same" padding within lines. Along y lines are rows; a run along x is one along y with rows and columns exchanged,
in pixels and kernels. A layer shares its lines as long as windows lie whole numbers of lines apart; the lines of each
window are put together for the layers that follow.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import Convolutions
from hrtemvae_hpc.windows.levels import Level, levels
from hrtemvae_hpc.windows.plain import PlainLayers
from hrtemvae_hpc.windows.runs import find_runs
from hrtemvae_hpc.windows.shared import FAINT, HUGE, Convolved, SharedFirstLayer, transposed
from hrtemvae_hpc.windows.workspace import Workspace

_INNER, _BORDER, _PADDING = range(3)  # kinds of lines
# Windows that pass through some layers before the next ones do: they stay in the cache.
_AT_ONCE = {torch.float32: 64, torch.bfloat16: 128}
_IN_CACHE = 3  # layers that they pass through, shared or not


class SharedLayers:
    """The first ``depth`` convolutions of an encoder with their activations, on a CPU."""

    def __init__(self, exact: Encoder, encoder: Encoder, step: int) -> None:
        """``exact`` is ``encoder``, which is ``folded``, in float32; results are of the type of ``encoder``."""
        a = self._architecture = encoder.architecture
        self._step = step
        self._levels = levels(a, step)
        shared = 1  # layers
        while shared < len(a.channels) and _shares(self._levels[shared + 1]):
            shared += 1
        self.shares = shared > 1
        self.depth = max(shared, min(_IN_CACHE, len(a.channels)))
        self._plain = PlainLayers(encoder, step, self.depth)
        self._dtype: torch.dtype = encoder.conv[0].weight.dtype  # type: ignore[assignment]
        self._at_once = _AT_ONCE[self._dtype]
        self._memory = Workspace()
        self._along: list[_Along] = []  # y and x
        if self._levels[1].inner:
            ways = (False, True) if self.shares else (False,)
            self._along = [
                _Along(exact, encoder, self._levels[: shared + 1], step, self.depth, x, self._memory) for x in ways
            ]

    def working_bytes(self, frames: int, rows: int, columns: int) -> int:
        """Bytes that ``rows`` x ``columns`` windows of ``frames`` frames take, their outputs included."""
        channels, first, last = self._architecture.channels, self._levels[1], self._levels[self.depth]
        places = [first.size + n * (first.step + len(first.border)) for n in (rows, columns)]
        shared = 2 * places[0] * places[1] * channels[0] + rows * columns * last.size**2 * channels[self.depth - 1]
        sizes = [level.size**2 * c for level, c in zip(self._levels[1:], channels, strict=True)]
        at_once = max(self._at_once, rows, columns)
        return 4 * (frames * shared + at_once * 3 * max(sizes))  # lines, strips, and the layer they give

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``frames`` float32 or float64, finite; ``low``, ``high`` [n, windows] of the same type, high > low. Returns the
        numbers of the windows, counted through all frames, and in this order their outputs [n * windows, channels,
        size, size], channels last in memory; a thread's next call overwrites these.
        """
        if not self._along:
            return self._plain.windows(frames, low, high)
        shape = len(frames), *((n - self._architecture.window) // self._step + 1 for n in frames.shape[1:])
        level, contrast = frames.amin((1, 2)), high - low
        scales = (torch.stack((low, high), -1) - level[:, None, None]).view(*shape, 2).numpy()
        faint = ((high - level[:, None] >= FAINT * contrast) | (contrast > HUGE)).view(shape).numpy()
        convolved = self._along[0].first.convolved((frames - level[:, None, None]).float())
        both = (convolved, transposed(convolved)) if self.shares else (convolved,)
        size, channels = self._levels[self.depth].size, self._architecture.channels[self.depth - 1]
        outputs = self._memory.empty("outputs", (low.numel(), size, size, channels), self._dtype)
        numbers = np.empty(low.numel(), int)
        done = 0
        for runs in find_runs(scales, max(shape[1:]) if self.shares else 1):
            for piece in runs.split(self._at_once):
                now = slice(done, done + piece.windows.shape[0] * piece.windows.shape[1])
                numbers[now] = np.ravel_multi_index(tuple(piece.windows.reshape(-1, 3).T), shape)
                along = self._along[runs.along_x]
                along.compute(both[runs.along_x], piece.windows, scales, outputs[now])
                done = now.stop
        again = np.flatnonzero(faint.ravel()[numbers])
        for batch in (torch.from_numpy(again[i : i + self._at_once]) for i in range(0, len(again), self._at_once)):
            exact = self._plain.outputs_of(frames, low, high, torch.from_numpy(numbers)[batch])
            outputs[batch] = exact.permute(0, 2, 3, 1)
        return torch.from_numpy(numbers), outputs.permute(0, 3, 1, 2)


class _Along:
    """The first convolutions of runs along one axis."""

    def __init__(
        self,
        exact: Encoder,
        encoder: Encoder,
        levels: list[Level],
        step: int,
        depth: int,
        along_x: bool,
        memory: Workspace,
    ) -> None:
        """``levels`` are the pixels and the layers to share; those up to ``depth`` see the windows whole."""
        self._levels, self._depth, self._along_x = levels, depth, along_x
        self._kernel, self._channels = encoder.architecture.kernel, encoder.architecture.channels
        self.first = SharedFirstLayer(exact, levels[1], step, transposed=along_x)
        self._convolutions = Convolutions(encoder, transposed=along_x)
        self._dtype: torch.dtype = encoder.conv[0].weight.dtype  # type: ignore[assignment]
        # Lines below that each line at the border of a layer sees, and all lines of a window at the end.
        self._seen = [
            np.array([_line(below, above.starts[i] + k) for i in above.border for k in range(self._kernel)])
            for below, above in pairwise(levels)
        ]
        self._whole = np.array([_line(levels[-1], i) for i in range(levels[-1].size)])
        self._memory = memory

    def compute(self, convolved: Convolved, windows: np.ndarray, scales: np.ndarray, out: Tensor) -> None:
        """Write the last layer's outputs of ``windows`` [runs, length, 3] to ``out`` [windows, size, size, channels].

        ``scales`` [frames, rows, columns, 2]; ``convolved`` is of the frames, transposed for runs along x.
        """
        inner, border = self._first_lines(convolved, windows, scales)
        for layer in range(1, len(self._levels) - 1):
            inner, border = self._next_lines(layer, inner, border)
        shape = len(out), len(self._whole), *inner.shape[2:]
        whole = self._memory.empty("whole", shape, self._dtype)
        _gather(*_raw(inner, border, whole), self._whole, self._levels[-1].step)
        outputs = whole.permute(0, 3, 1, 2)
        for layer in range(len(self._levels) - 1, self._depth):
            outputs = self._convolutions.convolve(layer, outputs)
        outputs = outputs.permute(0, 2, 3, 1)
        out[:] = outputs.transpose(1, 2) if self._along_x else outputs

    def _first_lines(self, convolved: Convolved, windows: np.ndarray, scales: np.ndarray) -> tuple[Tensor, Tensor]:
        """The first layer: inner lines [runs, lines, size, channels], border [runs, length, lines, size, channels]."""
        level, (runs, length, _) = self._levels[1], windows.shape
        line = level.size, self._channels[0]
        lines = len(level.inner) + (length - 1) * (level.step // level.hop)
        inner = self._memory.empty("inner", (runs, lines, *line), self._dtype)
        border = self._memory.empty("border", (runs, length, len(level.border), *line), self._dtype)
        raw = torch.uint16 if self._dtype == torch.bfloat16 else self._dtype
        first = windows[:, 0]
        first_scales = scales[tuple(first.T)]
        if self._along_x:
            first = first[:, [0, 2, 1]]
        self.first.fill(convolved, first, first_scales, inner.view(raw).numpy(), border.view(raw).numpy())
        return inner, border

    def _next_lines(self, layer: int, inner: Tensor, border: Tensor) -> tuple[Tensor, Tensor]:
        """The same of ``layer``, given those of the layer below."""
        below, above = self._levels[layer : layer + 2]
        runs, length, _, *line = border.shape
        if above.border:
            shape = runs * length * len(above.border), self._kernel, *line
            strips = self._memory.empty("strips", shape, self._dtype)
            _gather(*_raw(inner, border, strips), self._seen[layer], below.step)
            border = self._convolve(layer, strips)
        else:
            border = border[:0]
        first = above.seen[above.inner[0]][0] - below.inner[0]
        inner = self._convolve(layer, inner[:, first:])
        return inner, border.reshape(runs, length, len(above.border), *inner.shape[2:])

    def _convolve(self, layer: int, lines: Tensor) -> Tensor:
        """``lines`` [n, lines, size, channels] convolved without padding before and after, contiguous."""
        convolved = self._convolutions.convolve(layer, lines.permute(0, 3, 1, 2), pad_y=False)
        return convolved.permute(0, 2, 3, 1).contiguous()


def _shares(level: Level) -> bool:
    """Whether two windows next to each other in a run have lines of this layer in common."""
    return level.hop == 1 and level.step < len(level.inner)


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
            for q in range(len(target)):  # assigning slices checks whether they overlap, six times slower
                target[q] = line[q]

"""The first convolution, computed once per frame and shared by all windows that overlap.

A window is scaled by its own minimum and range, (x - low) / range, before it is convolved. The convolution is linear
and the scaling affine, so that for kernel w, bias b and the sum S of the kernel's weights

    sum of w * (x - low) / range + b  =  (C - low * S) / range + b,   C = sum of w * x.

C doesn't know the window: it is computed once for the frame, and each window reads its part. At a window's border
"same" padding puts zeros outside, so there only the part of the kernel inside counts, with its own C and its own S:

    a window's outputs      + inner: the whole kernel; places of C lie all over the frame
    r - - - - - - r         - a row at the border: a kernel without its outer rows; C only along the first (or last)
    | + + + + + + |             rows of windows
    | + + + + + + |         | a column at the border: likewise
    | + + + + + + |         r a corner: neither; one place of C for each window
    r - - - - - - r

One pass over the lines of a window that are wanted then reads C, scales, shifts, cuts off below zero, rounds to the
type that the second layer wants and writes where that reads. Nothing else is as large as this layer, so nothing else
passes through memory.

C of a window that is faint compared with its level has lost digits, and C of very large pixels overflows: see `FAINT`
and `HUGE`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import first_layer
from hrtemvae_hpc.windows.levels import Level

FAINT = 64.0  # A level this many ranges above 0 takes too many digits: rounding to 2^-24 of it is 4e-6 of the range.
HUGE = 1e30  # A range above which sums of a kernel's products may overflow float32.
Convolved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class SharedFirstLayer:
    """The first convolution of an encoder with its activation and normalisation, on a CPU."""

    def __init__(self, encoder: Encoder, level: Level, step: int, transposed: bool = False) -> None:
        """``encoder`` is in float32, as is all arithmetic here; ``level`` is the layer's and has inner outputs.

        ``transposed``: for frames with rows and columns exchanged, as they then are in the outputs.
        """
        a = encoder.architecture
        self._level, self._step, self._window = level, step, a.window
        self._pixels = step // level.step  # between places of C
        weight, bias, gain, offset = first_layer(encoder)
        after = a.normalization == "after_activation"
        self._gain, self._offset = (np.tile(n.numpy(), level.size * after) for n in (gain, offset))
        if transposed:
            weight = weight.transpose(2, 3)
        self._bias = bias.numpy()
        # Along an axis, of the inner outputs and of each at the border: the part of the kernel inside, and the pixel
        # where it starts.
        self._kinds = [(level.part(i), level.seen[i].start) for i in [level.inner[0], *level.border]]
        taps = weight[:, 0].permute(1, 2, 0).numpy()
        self._kernels = [[np.ascontiguousarray(taps[y, x]) for x, _ in self._kinds] for y, _ in self._kinds]
        self._sums = np.array([[kernel.sum((0, 1)) for kernel in row] for row in self._kernels])
        # With this layout of the kernel, C already has its channels last.
        self._inner = weight.to(memory_format=torch.channels_last)

    def fill(
        self, convolved: Convolved, runs: np.ndarray, scales: np.ndarray, inner: np.ndarray, border: np.ndarray
    ) -> None:
        """Write the lines of outputs of runs: windows one below the other that have one scale.

        ``runs`` [n, 3]: frame, row and column of the first window; ``scales`` [n, 2]: what becomes 0 and 1. ``inner``
        [n, lines, size, channels] takes the inner lines of a run as a whole, ``border`` [n, length, lines, size,
        channels] those at the border of each window; float32, or uint16 to hold bfloat16.
        """
        level = self._level
        numbers = self._sums, self._bias, self._gain, self._offset
        chosen = np.ascontiguousarray(runs), scales.astype(np.float64)  # one type of each is compiled
        _fill(*convolved, *chosen, level.step, level.hop, level.inner[0], *numbers, inner, border)

    def convolved(self, frames: Tensor) -> Convolved:
        """C of ``frames`` [n, rows, columns] float32: of inner outputs, of rows and columns at the border, of corners.

        [n, places, places, channels], [border, n, windows along y, places, channels], [border, n, windows along x,
        places, channels], [border * border, n, windows along y, windows along x, channels].
        """
        starts, hop, step = [start for _, start in self._kinds], self._pixels, self._step
        inner = F.conv2d(frames[:, None, starts[0] :, starts[0] :], self._inner, stride=hop).permute(0, 2, 3, 1)
        n, *places, channels = inner.shape
        windows = [(length - self._window) // step + 1 for length in frames.shape[1:]]
        border = range(len(self._kinds) - 1)
        rows = np.empty((len(border), n, windows[0], places[1], channels), np.float32)
        columns = np.empty((len(border), n, windows[1], places[0], channels), np.float32)
        corners = np.empty((len(border), len(border), n, *windows, channels), np.float32)
        pixels = frames.numpy()
        for u, above in enumerate(starts[1:]):
            row, column = pixels[:, above:, starts[0] :], pixels.transpose(0, 2, 1)[:, above:, starts[0] :]
            _convolve(row, self._kernels[u + 1][0], step, hop, rows[u])
            _convolve(column, np.ascontiguousarray(self._kernels[0][u + 1].transpose(1, 0, 2)), step, hop, columns[u])
            for v, left in enumerate(starts[1:]):
                _convolve(pixels[:, above:, left:], self._kernels[u + 1][v + 1], step, step, corners[u, v])
        return inner.contiguous().numpy(), rows, columns, corners.reshape(-1, *corners.shape[2:])


def transposed(convolved: Convolved) -> Convolved:
    """C of the same frames with their rows and columns exchanged, by the kernel transposed."""
    inner, rows, columns, corners = convolved
    border = len(rows)
    corners = corners.reshape(border, border, *corners.shape[1:]).transpose(1, 0, 2, 4, 3, 5)
    corners = corners.reshape(border**2, *corners.shape[2:])
    return np.ascontiguousarray(inner.transpose(0, 2, 1, 3)), columns, rows, corners


@compiled(fastmath={"contract", "nsz", "nnan", "ninf"})
def _convolve(frames, kernel, step_y, step_x, out):  # type: ignore[no-untyped-def]
    """Convolve ``frames`` [n, rows, columns] every so many pixels with ``kernel`` [rows, columns, channels].

    ``out`` [n, places, places, channels]. Products of gathered pixels took twice as long for few places along y.
    """
    across, taps = kernel.shape[1], kernel.shape[0] * kernel.shape[1]
    weights = kernel.reshape(taps, kernel.shape[2])
    out[:] = 0
    for t in range(len(out)):
        for i in range(out.shape[1]):
            pixels, sums = frames[t, i * step_y :], out[t, i]
            for k in range(0, taps - 3, 4):  # four at a time: each addition to memory is read and written
                w = weights[k : k + 4]
                a = pixels[k // across, k % across :: step_x]
                b = pixels[(k + 1) // across, (k + 1) % across :: step_x]
                c = pixels[(k + 2) // across, (k + 2) % across :: step_x]
                d = pixels[(k + 3) // across, (k + 3) % across :: step_x]
                for j in range(len(sums)):
                    for q in range(sums.shape[1]):
                        sums[j, q] += a[j] * w[0, q] + b[j] * w[1, q] + c[j] * w[2, q] + d[j] * w[3, q]
            for k in range(taps - taps % 4, taps):
                a = pixels[k // across, k % across :: step_x]
                for j in range(len(sums)):
                    for q in range(sums.shape[1]):
                        sums[j, q] += a[j] * weights[k, q]


@compiled(fastmath={"contract", "nsz", "nnan", "ninf"})
def _fill(  # type: ignore[no-untyped-def]
    inner, rows, columns, corners, runs, scales, step, hop, first, sums, bias, gain, offset, inner_out, border_out
):
    """``step`` and ``hop`` count places of C; for the rest see ``SharedFirstLayer.fill``."""
    size, channels, kinds = inner_out.shape[2], inner_out.shape[3], len(sums)
    count, zero = size - kinds + 1, np.float32(0)  # of inner outputs along an axis
    inner_rows = inner.reshape(inner.shape[0], inner.shape[1], -1)
    border_rows = rows.reshape(rows.shape[0], rows.shape[1], rows.shape[2], -1)
    lines = inner_out.shape[1]
    inner_lines = inner_out.reshape(len(runs), lines, size * channels)
    border_lines = border_out.reshape(len(runs), -1, size * channels)
    # Neighbours in a window are neighbours in C, unless windows start between them.
    spans, span = (1, count) if hop == 1 else (count, 1)
    shift = np.empty((kinds, kinds, channels), np.float32)
    shifts = np.empty((kinds, span, channels), np.float32)
    flat_shifts = shifts.reshape(kinds, span * channels)
    places = np.empty((size, channels), np.float32)
    line = places.reshape(size * channels)
    bits = line.view(np.uint32)
    for n in range(len(runs)):
        t, r, s = runs[n]
        scale = np.float32(1 / (scales[n, 1] - scales[n, 0]))
        level = np.float32(scales[n, 0] * scale)
        for u in range(kinds):
            for v in range(kinds):
                for c in range(channels):
                    shift[u, v, c] = bias[c] - level * sums[u, v, c]
            for j in range(span):
                for c in range(channels):
                    shifts[u, j, c] = shift[u, 0, c]
        for i in range(lines + border_lines.shape[1]):
            # Kind and place along y, the row of windows, and where to write.
            if i < lines:
                u, y, w, out = 0, r * step + i * hop, r, inner_lines[n, i]
            else:
                u, w = 1 + (i - lines) % (kinds - 1), r + (i - lines) // (kinds - 1)
                y, out = 0, border_lines[n, i - lines]
            for k in range(spans):
                begin, place = (s * step + k * hop) * channels, (first + k) * channels
                end = begin + span * channels
                source = inner_rows[t, y, begin:end] if u == 0 else border_rows[u - 1, t, w, begin:end]
                target = line[place : place + span * channels]
                for q in range(span * channels):
                    target[q] = max(source[q] * scale + flat_shifts[u, q], zero)
            for v in range(1, kinds):
                j = v - 1 if v <= first else v - 1 + count
                if u == 0:
                    for c in range(channels):
                        places[j, c] = max(columns[v - 1, t, s, y, c] * scale + shift[u, v, c], zero)
                else:
                    corner = (u - 1) * (kinds - 1) + v - 1
                    for c in range(channels):
                        places[j, c] = max(corners[corner, t, w, s, c] * scale + shift[u, v, c], zero)
            for q in range(len(gain)):
                line[q] = line[q] * gain[q] + offset[q]
            if out.itemsize == 2:  # bfloat16, rounded to nearest even
                for q in range(size * channels):
                    odd = (bits[q] >> np.uint32(16)) & np.uint32(1)
                    out[q] = (bits[q] + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            else:
                for q in range(size * channels):
                    out[q] = line[q]

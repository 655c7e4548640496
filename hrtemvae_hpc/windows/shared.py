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

One pass over a window then reads C, scales, shifts, cuts off below zero, rounds to the type that the second layer wants
and writes where that reads. Nothing else is as large as this layer, so nothing else passes over memory.

C of a window that is faint beside its level has lost digits. Where the level, counted from the least pixel of the
frame, is more than 64 times the range, the window is computed the plain way.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.model.architecture import same_padding
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.plain import PlainFirstLayer

_LEVEL = 64.0  # times the range of a window: rounding to 2^-24 of it is 4e-6 of the range
_AT_ONCE = 32  # windows whose first layer is in memory at the same time: it stays in the cache of a core


class SharedFirstLayer:
    """The first convolution of an encoder with its activation, on a CPU."""

    def __init__(self, encoder: Encoder, plain: PlainFirstLayer) -> None:
        """``encoder`` is in float32, as is all arithmetic here; results are of the type that ``plain`` gives."""
        a = encoder.architecture
        self._plain = plain
        self._step, self._stride, self._window, self._size = plain.step, a.stride, a.window, a.sizes[1]
        self._hop = math.gcd(plain.step, a.stride)  # pixels between places of C
        conv: nn.Conv2d = encoder.conv[0]  # type: ignore[assignment]
        if a.normalization == "before_activation":
            conv = fuse_conv_bn_eval(conv, encoder.norm[0])  # type: ignore[arg-type]
        weight = conv.weight.detach()
        self._bias = conv.bias.detach().numpy()  # type: ignore[union-attr]
        before, _ = same_padding(a.window, a.kernel, a.stride)
        starts = [i * a.stride - before for i in range(self._size)]
        parts = [slice(max(0, -s), min(a.kernel, a.window - s)) for s in starts]  # of the kernel, inside the window
        inner = [i for i, part in enumerate(parts) if part == slice(0, a.kernel)]
        self._first, self._stop = (inner[0], inner[-1] + 1) if inner else (0, 0)
        border = [i for i in range(self._size) if i not in inner]
        # Along an axis: the part of the kernel and the pixel where it starts, of the inner outputs and of each at the
        # border.
        self._kinds = [(parts[i], starts[i] + parts[i].start) for i in [*inner[:1], *border]]
        taps = weight[:, 0].permute(1, 2, 0).numpy()
        self._kernels = [[np.ascontiguousarray(taps[y, x]) for x, _ in self._kinds] for y, _ in self._kinds]
        self._sums = np.array([[kernel.sum((0, 1)) for kernel in row] for row in self._kernels])
        # In this layout of the kernel, C has its channels last already.
        self._inner = weight.to(memory_format=torch.channels_last)

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> Iterator[Tensor]:
        """The layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``frames`` float32 or float64, finite, counted from about its least pixel; ``low``, ``high`` [n, windows] of the
        same type, high > low. Yields [some, channels, size, size], channels last in memory, of some frames at a time;
        each is overwritten by the next.
        """
        if self._first == self._stop:
            yield from self._plain.windows(frames, low, high)
            return
        shared = self._shared(frames.float())
        across = (frames.shape[2] - self._window) // self._step + 1
        faint = high >= _LEVEL * (high - low)
        at_once = max(1, _AT_ONCE // low.shape[1])
        dtype = self._plain.dtype
        buffer = torch.empty(at_once * low.shape[1], self._size, self._size, len(self._bias), dtype=dtype)
        for start in range(0, len(frames), at_once):
            part = slice(start, start + at_once)
            out = buffer[: low[part].numel()]
            _fill_windows(
                *shared,
                start,
                low.numpy(),
                high.numpy(),
                across,
                self._step // self._hop,
                self._stride // self._hop,
                self._first,
                self._sums,
                self._bias,
                (out.view(torch.uint16) if dtype == torch.bfloat16 else out).numpy(),
            )
            activations = self._plain.normalize(out.permute(0, 3, 1, 2))
            which = faint[part]
            if which.any():
                activations[which.flatten()] = self._plain.some(frames[part], low[part], high[part], which)
            yield activations

    def _shared(self, frames: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """C of ``frames`` [n, rows, columns]: of inner outputs, of rows and columns at the border, and of corners.

        [n, places, places, channels], [border, n, windows along y, places, channels], [border, n, windows along x,
        places, channels], [border * border, n, windows along y, windows along x, channels].
        """
        starts, hop, step = [start for _, start in self._kinds], self._hop, self._step
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
def _fill_windows(inner, rows, columns, corners, frame, low, high, across, step, stride, first, sums, bias, out):  # type: ignore[no-untyped-def]
    """Write windows from those of ``frame`` on to ``out`` [windows, size, size, channels].

    ``step`` and ``stride`` count places of C.
    """
    size, channels, kinds = out.shape[1], out.shape[3], len(sums)
    count, zero = size - kinds + 1, np.float32(0)  # of inner outputs along an axis
    inner_rows = inner.reshape(inner.shape[0], inner.shape[1], -1)
    border_rows = rows.reshape(rows.shape[0], rows.shape[1], rows.shape[2], -1)
    out_rows = out.reshape(len(out), size, size * channels)
    # Neighbours in a window are neighbours in C, unless windows start between them.
    runs, run = (1, count) if stride == 1 else (count, 1)
    shift = np.empty((kinds, kinds, channels), np.float32)
    shifts = np.empty((kinds, run, channels), np.float32)
    flat_shifts = shifts.reshape(kinds, run * channels)
    places = np.empty((size, channels), np.float32)
    row = places.reshape(size * channels)
    bits = row.view(np.uint32)
    for n in range(len(out)):
        t, w = frame + n // low.shape[1], n % low.shape[1]
        r, s = w // across, w % across
        scale = np.float32(1 / (high[t, w] - low[t, w]))
        offset = np.float32(low[t, w] * scale)
        for u in range(kinds):
            for v in range(kinds):
                for c in range(channels):
                    shift[u, v, c] = bias[c] - offset * sums[u, v, c]
            for j in range(run):
                for c in range(channels):
                    shifts[u, j, c] = shift[u, 0, c]
        for i in range(size):
            u = 0 if first <= i < first + count else 1 + i if i < first else 1 + i - count
            y = r * step + (i - first) * stride
            for k in range(runs):
                begin, place = (s * step + k * stride) * channels, (first + k) * channels
                end = begin + run * channels
                source = inner_rows[t, y, begin:end] if u == 0 else border_rows[u - 1, t, r, begin:end]
                target = row[place : place + run * channels]
                for q in range(run * channels):
                    target[q] = max(source[q] * scale + flat_shifts[u, q], zero)
            for v in range(1, kinds):
                j = v - 1 if v <= first else v - 1 + count
                if u == 0:
                    for c in range(channels):
                        places[j, c] = max(columns[v - 1, t, s, y, c] * scale + shift[u, v, c], zero)
                else:
                    corner = (u - 1) * (kinds - 1) + v - 1
                    for c in range(channels):
                        places[j, c] = max(corners[corner, t, r, s, c] * scale + shift[u, v, c], zero)
            if out.itemsize == 2:  # bfloat16, rounded to nearest even
                for q in range(size * channels):
                    odd = (bits[q] >> np.uint32(16)) & np.uint32(1)
                    out_rows[n, i, q] = (bits[q] + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            else:
                for q in range(size * channels):
                    out_rows[n, i, q] = row[q]

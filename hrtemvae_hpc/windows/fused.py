"""The first layer on a GPU: one kernel from the pixels of a frame to what the second layer reads.

Overlapping windows don't share their convolution here. An output costs kernel^2 multiplications, which a GPU does while
it writes the previous output; reading a shared convolution instead would move twice as many bytes. So each program
computes some outputs of one window with all their channels, as they are defined: pixels are scaled when they are read,
"same" padding is a mask, and nothing but the pixels and the result passes through memory. Pixels are scaled in their
own type, all other arithmetic is in float32, whatever the type of the result.

The pixels stay in the caches: neighbouring outputs share them, and neighbouring windows most of them.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import first_layer

_PLACES, _WARPS = 128, 4  # outputs of a program, and warps that share them


class FusedFirstLayer:
    """The first convolution of an encoder with its activation and normalisation, on a GPU."""

    depth = 1

    def __init__(self, encoder: Encoder, step: int, dtype: torch.dtype, device: torch.device) -> None:
        """``encoder`` is ``folded`` and in float32; results are of type ``dtype``."""
        a = encoder.architecture
        self._dtype, self._step, self._window, self._size = dtype, step, a.window, a.sizes[1]
        weight, *others = first_layer(encoder)
        channels = len(weight)
        taps = weight.flatten(1).T  # [rows * columns of the kernel, channels]
        self._numbers = [n.to(device, copy=True).contiguous() for n in (taps, *others)]
        self._fixed: dict[str, Any] = {
            "before": a.pads[0][0],
            "stride": a.strides[0],
            "kernel": a.kernel,
            "channels": channels,
            "lanes": triton.next_power_of_2(channels),
            "places": _PLACES,
        }

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``frames`` float32 or float64, contiguous; ``low``, ``high`` [n, windows] of the same type, high > low.
        Returns the numbers of all windows, and their outputs [n * windows, channels, size, size], channels last in
        memory. Raises RuntimeError if Triton can't compile.
        """
        size, channels = self._size, self._fixed["channels"]
        out = torch.empty(low.numel(), size, size, channels, dtype=self._dtype, device=frames.device)
        grid = (low.numel(), math.ceil(size**2 / _PLACES))
        across = (frames.shape[2] - self._window) // self._step + 1
        pixels = (frames, low.contiguous(), high.contiguous())
        sizes = (*frames.shape[1:], low.shape[1], across, self._step, self._window, size)
        try:
            _first_layer[grid](*pixels, *self._numbers, out, *sizes, **self._fixed, num_warps=_WARPS)
        except Exception as error:  # Triton's have no base in common
            raise RuntimeError(
                f"Triton can't compile or start the first layer ({type(error).__name__}: {error}); it needs a C "
                "compiler, Python's headers, the GPU's driver, and a folder for its cache (TRITON_CACHE_DIR)"
            ) from error
        return torch.arange(low.numel(), device=low.device), out.permute(0, 3, 1, 2)


@triton.jit(do_not_specialize=["rows", "columns", "windows", "across"])  # type: ignore[untyped-decorator]
def _first_layer(  # type: ignore[no-untyped-def]
    frames, low, high, taps, bias, gain, shift, out, rows, columns, windows, across, step, window, size,
    before: tl.constexpr, stride: tl.constexpr, kernel: tl.constexpr, channels: tl.constexpr, lanes: tl.constexpr,
    places: tl.constexpr,
):  # fmt: skip
    """Write ``places`` outputs of window program_id(0) to ``out`` [frames * windows, size * size, channels]."""
    n = tl.program_id(0).to(tl.int64)
    corner = frames + n // windows * rows * columns
    corner += (n % windows) // across * step * columns + (n % windows) % across * step
    lowest = tl.load(low + n)
    scale = 1 / (tl.load(high + n) - lowest)
    place = tl.program_id(1) * places + tl.arange(0, places)
    exists = place < size * size
    y, x = place // size * stride - before, place % size * stride - before
    channel = tl.arange(0, lanes)
    known = channel < channels
    total = tl.full([places, lanes], 0, tl.float32) + tl.load(bias + channel, known, 0)[None, :]
    for tap in tl.static_range(kernel * kernel):
        row, column = y + tap // kernel, x + tap % kernel
        inside = exists & (row >= 0) & (row < window) & (column >= 0) & (column < window)
        pixel = tl.load(corner + row * columns + column, inside, lowest)
        weight = tl.load(taps + tap * channels + channel, known, 0)
        total += ((pixel - lowest) * scale).to(tl.float32)[:, None] * weight[None, :]
    total = tl.maximum(total, 0) * tl.load(gain + channel, known, 0)[None, :]
    total += tl.load(shift + channel, known, 0)[None, :]
    target = out + (n * size * size + place[:, None]) * channels + channel[None, :]
    tl.store(target, total.to(out.dtype.element_ty), exists[:, None] & known[None, :])

"""All convolutions of a network without padding, computed once for a block of windows and shared by them.

Such a network has no border: an output of any layer is the same for all windows that see the same pixels. So the
convolutions run over the block as if it were one large window, and a window is a square of the last layer's outputs.
These lie as many pixels apart as the product of all strides. If the step is not a multiple of that, other windows begin
between them; they are the same outputs of a block that begins some pixels later, and take convolutions of their own.
"""

import math
from itertools import pairwise, product

import torch
from torch import Tensor

from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import Convolutions


class ValidConvolutions:
    """The convolutions of a ``folded`` encoder without padding, for windows every ``step`` pixels."""

    def __init__(self, encoder: Encoder, step: int) -> None:
        """Everything is computed on the device and in the type of ``encoder``."""
        a = self._architecture = encoder.architecture
        self._step = step
        self._convolutions = Convolutions(encoder)
        pitch = a.pitch
        self._phases = pitch // math.gcd(step, pitch)  # along an axis, one window after the other
        self._hop = self._phases * step // pitch  # outputs between windows of one phase

    def working_bytes(self, frames: int, rows: int, columns: int) -> int:
        """Bytes that ``rows`` x ``columns`` windows of ``frames`` frames take: two layers, and all windows cut out."""
        a, pitch = self._architecture, 1
        layers = [1]
        for stride, channels in zip(a.strides, a.channels, strict=True):
            pitch *= stride
            places = [(a.window + n * self._step) // pitch for n in (rows, columns)]
            layers.append(places[0] * places[1] * channels)
        two = max(map(sum, pairwise(layers)))
        return 4 * frames * (two + 2 * rows * columns * a.sizes[-1] ** 2 * a.channels[-1])

    def windows(self, frames: Tensor) -> Tensor:
        """The last layer's output for all windows of ``frames`` [n, rows, columns], which are scaled to 0..1.

        Returns [n * windows, channels, size, size], channels last in memory.
        """
        a = self._architecture
        counts = [(n - a.window) // self._step + 1 for n in frames.shape[1:]]
        size, channels = a.sizes[-1], a.channels[-1]
        cut = torch.empty(len(frames), *counts, size, size, channels, dtype=frames.dtype, device=frames.device)
        for y, x in product(*(range(min(self._phases, n)) for n in counts)):
            outputs = frames[:, None, y * self._step :, x * self._step :]
            for layer in range(len(a.channels)):
                outputs = self._convolutions.convolve(layer, outputs)
            windows = outputs.unfold(2, size, self._hop).unfold(3, size, self._hop).permute(0, 2, 3, 4, 5, 1)
            place = cut[:, y :: self._phases, x :: self._phases]
            place[:] = windows[:, : place.shape[1], : place.shape[2]]
        return cut.view(-1, size, size, channels).permute(0, 3, 1, 2)

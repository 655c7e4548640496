"""All layers of a network without padding before the last, computed for a block of windows and shared by them.

Such a network has no border: an output of any layer is the same for all windows that see the same pixels. So the
convolutions run over the block as if it were one large window, and a window is a square of the last one's outputs. The
dense layer is a convolution over these, with a kernel as large as that square. Outputs lie as many pixels apart as the
product of all strides. If the step is not a multiple of that, other windows begin between them; they are the same
outputs of a block that begins some pixels later, and take convolutions of their own.
"""

import math
from itertools import pairwise, product

import torch
from torch import Tensor

from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import Convolutions, DenseOverPlaces


class ValidLayers:
    """The layers of a ``folded`` encoder without padding, for windows every ``step`` pixels."""

    def __init__(self, encoder: Encoder, step: int) -> None:
        """Everything is computed on the device and in the type of ``encoder``."""
        a = self._architecture = encoder.architecture
        self._step = step
        self._convolutions = Convolutions(encoder)
        pitch = a.pitch
        self._phases = pitch // math.gcd(step, pitch)  # along an axis, one window after the other
        self._dense = DenseOverPlaces(encoder, self._phases * step // pitch)  # outputs between windows of one phase

    def working_bytes(self, frames: int, rows: int, columns: int) -> int:
        """Bytes that ``rows`` x ``columns`` windows of ``frames`` frames take: two layers, and what the last gives."""
        a, pitch = self._architecture, 1
        layers = [1]
        for stride, channels in zip(a.strides, a.channels, strict=True):
            pitch *= stride
            places = [(a.window + n * self._step) // pitch for n in (rows, columns)]
            layers.append(places[0] * places[1] * channels)
        last = rows * columns * a.hidden
        return 4 * frames * (max(map(sum, pairwise([*layers, last]))) + last)

    def hidden(self, frames: Tensor) -> Tensor:
        """The dense layer's activations for all windows of ``frames`` [n, rows, columns], which are scaled to 0..1.

        Returns [n * windows, hidden].
        """
        a = self._architecture
        counts = [(n - a.window) // self._step + 1 for n in frames.shape[1:]]
        if self._phases == 1:
            return self._of_phase(frames)[:, : counts[0], : counts[1]].flatten(0, 2)
        hidden = torch.empty(len(frames), *counts, a.hidden, dtype=frames.dtype, device=frames.device)
        for y, x in product(*(range(min(self._phases, n)) for n in counts)):
            place = hidden[:, y :: self._phases, x :: self._phases]
            place[:] = self._of_phase(frames[:, y * self._step :, x * self._step :])[
                :, : place.shape[1], : place.shape[2]
            ]
        return hidden.flatten(0, 2)

    def _of_phase(self, frames: Tensor) -> Tensor:
        """Activations [n, windows, windows, hidden] of the windows that begin at outputs of the last convolution."""
        outputs = frames[:, None]
        for layer in range(len(self._architecture.channels)):
            outputs = self._convolutions.convolve(layer, outputs)
        return self._dense(outputs)

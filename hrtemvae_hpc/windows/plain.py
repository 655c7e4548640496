"""The first layers as they are defined: windows are cut, scaled and convolved one by one."""

import torch
from torch import Tensor

from hrtemvae_hpc.model.network import Encoder


class PlainLayers:
    """The first ``depth`` convolutions of an encoder with their activations, for windows every ``step`` pixels."""

    def __init__(self, encoder: Encoder, step: int, depth: int) -> None:
        """The convolutions are computed on the device and in the type of ``encoder``."""
        self._encoder, self._step = encoder, step
        self.depth = depth

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``low``, ``high`` [n, windows], high > low. Returns the numbers of the windows, counted through all
        frames, and in this order their outputs [n * windows, channels, size, size], channels last in memory.
        """
        numbers = torch.arange(low.numel())
        return numbers, self.outputs_of(frames, low, high, numbers)

    def outputs_of(self, frames: Tensor, low: Tensor, high: Tensor, numbers: Tensor) -> Tensor:
        """The outputs of the windows with these ``numbers``."""
        size = self._encoder.architecture.window
        cut = frames.unfold(1, size, self._step).unfold(2, size, self._step)
        frame, window = numbers // low.shape[1], numbers % low.shape[1]
        cut = cut[frame, window // cut.shape[2], window % cut.shape[2]]
        low, high = (limits.flatten()[numbers, None, None] for limits in (low, high))
        weight: Tensor = self._encoder.conv[0].weight  # type: ignore[assignment]
        x = ((cut - low) / (high - low))[:, None].to(weight.dtype).contiguous(memory_format=torch.channels_last)
        return self._encoder.layers(x, 0, self.depth)

"""The first layer as it is defined: windows are cut, scaled and convolved one by one."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hrtemvae_hpc.model.network import Encoder


class PlainFirstLayer:
    """The first convolution of an encoder with its activation, for windows every ``step`` pixels of a frame."""

    def __init__(self, encoder: Encoder, step: int) -> None:
        """The convolution is computed on the device and in the type of ``encoder``."""
        self._encoder = encoder
        self.step = step
        self.dtype: torch.dtype = encoder.conv[0].weight.dtype  # type: ignore[assignment]

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> Iterator[Tensor]:
        """The layer's output for all windows of ``frames`` [n, rows, columns], scaled from low..high to 0..1.

        ``low``, ``high`` [n, windows], high > low. Yields [n * windows, channels, size, size], channels last in memory.
        """
        yield self.some(frames, low, high, torch.ones_like(low, dtype=torch.bool))

    def some(self, frames: Tensor, low: Tensor, high: Tensor, which: Tensor) -> Tensor:
        """The same for the windows that are true in ``which`` [n, windows]."""
        size = self._encoder.architecture.window
        cut = frames.unfold(1, size, self.step).unfold(2, size, self.step)
        frame, window = which.nonzero(as_tuple=True)
        cut = cut[frame, window // cut.shape[2], window % cut.shape[2]]
        scaled = (cut - low[which][:, None, None]) / (high - low)[which][:, None, None]
        x = scaled[:, None].to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self._encoder.layers(x, 0, 1)

    def normalize(self, activations: Tensor) -> Tensor:
        """The normalisation that follows the first activation, if there is one."""
        after = self._encoder.architecture.normalization == "after_activation"
        return self._encoder.norm[0](activations) if after else activations

"""Layers at the full speed of a CPU: by oneDNN, with weights that were laid out for its products beforehand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrtemvae_hpc.model.architecture import same_padding
from hrtemvae_hpc.model.network import Encoder


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor; where not, PyTorch does, slower than in float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-any-return]


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN computes with weights on this device and of this type."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return weight.dtype == torch.float32 or has_bfloat16()


def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` [n, inputs] to [n, outputs] for ``weight`` [outputs, inputs], all of one type.

    On a CPU by oneDNN: PyTorch's own calls MKL, half as fast in float32 on processors that aren't Intel's. For sums of
    thousands of terms, MKL rounds better.
    """
    if can_pack(weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


class PackedLayers:
    """The layers of an encoder after its first convolution; ``can_pack`` is true of its weights.

    oneDNN lays weights out anew in every call, unless it gets them as it wants them.
    """

    def __init__(self, encoder: Encoder) -> None:
        a = encoder.architecture
        self._encoder, self._stride = encoder, [a.stride, a.stride]
        self._pads = [same_padding(size, a.kernel, a.stride) for size in a.sizes[:-1]]
        self._weights: list[Tensor] = [
            torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight, pads if pads[0] == pads[1] else (0, 0), self._stride
            )
            for conv, pads in zip(encoder.conv, self._pads, strict=True)
        ]
        self._dense: Tensor = torch.ops.mkldnn._reorder_linear_weight(encoder.dense.weight)

    def layers(self, x: Tensor, first: int, stop: int) -> Tensor:
        """Convolutions ``first:stop``, first > 0, with their activations; ``x`` is what the one before returned."""
        for layer in range(len(self._weights))[first:stop]:
            x = self._convolve(layer, x)
        return x

    def hidden(self, x: Tensor, first: int) -> Tensor:
        """The activations [n, hidden] that the mean reads, from the input of convolution ``first`` on."""
        x = self.layers(x, first, len(self._weights)).permute(0, 2, 3, 1).flatten(1)
        bias = self._encoder.dense.bias
        return torch.ops.mkldnn._linear_pointwise(x, self._dense, bias, "relu", [], "")  # type: ignore[no-any-return]

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean [n, latents] of the latents."""
        return self._encoder.mean(hidden)  # type: ignore[no-any-return]

    def _convolve(self, layer: int, x: Tensor) -> Tensor:
        before, after = pads = self._pads[layer]
        if before != after:
            x, pads = F.pad(x, (before, after, before, after)), (0, 0)
        normalization = self._encoder.architecture.normalization
        weight, bias = self._weights[layer], self._encoder.conv[layer].bias
        fused = "none" if normalization == "before_activation" else "relu"
        x = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, pads, self._stride, [1, 1], 1, fused, [], "")
        if normalization == "before_activation":
            return self._encoder.activate(layer, x)
        return x if normalization == "none" else self._encoder.norm[layer](x)

"""The layers of an encoder, at the full speed of a device: on a CPU by oneDNN, with weights laid out beforehand."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.processor import has_bfloat16

_AT_ONCE = (
    1024  # windows of the widest layer on a CPU: blocks of 32 MB and more are requested from the system each time
)


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


def folded(encoder: Encoder) -> Encoder:
    """``encoder``, in evaluation mode, with a normalisation before the activation folded into its convolutions."""
    a = encoder.architecture
    if a.normalization != "before_activation":
        return encoder
    plain = Encoder(a.model_copy(update={"normalization": "none"}))
    plain.conv = nn.ModuleList(map(fuse_conv_bn_eval, encoder.conv, encoder.norm))  # type: ignore[arg-type]
    plain.dense, plain.mean, plain.log_var = encoder.dense, encoder.mean, encoder.log_var
    return plain.eval()


def first_layer(encoder: Encoder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias, gain and offset of a ``folded`` encoder's first layer: relu(convolution) * gain + offset.

    Gain 1 and offset 0 unless a normalisation comes after the activation.
    """
    conv: nn.Conv2d = encoder.conv[0]  # type: ignore[assignment]
    gain, offset = torch.ones(len(conv.weight)), torch.zeros(len(conv.weight))
    if encoder.norm:
        norm: nn.BatchNorm2d = encoder.norm[0]  # type: ignore[assignment]
        gain = norm.weight * (norm.running_var + norm.eps) ** -0.5  # type: ignore[operator]
        offset = norm.bias - norm.running_mean * gain  # type: ignore[operator]
    return conv.weight.detach(), conv.bias.detach(), gain.detach(), offset.detach()  # type: ignore[union-attr]


class Convolutions:
    """The convolutions of a ``folded`` encoder.

    oneDNN lays weights out again in every call, unless they already have its layout.
    """

    def __init__(self, encoder: Encoder, transposed: bool = False) -> None:
        """``transposed``: for inputs with rows and columns exchanged, as they then are in the outputs."""
        a = encoder.architecture
        self._encoder, self._strides = encoder, [[s, s] for s in a.strides]
        self._pads = a.pads
        self._packed = can_pack(encoder.dense.weight)
        self._weights = []
        for conv, pads, stride in zip(encoder.conv, self._pads, self._strides, strict=True):
            weight: Tensor = conv.weight  # type: ignore[assignment]
            if transposed:
                weight = weight.transpose(2, 3).contiguous(memory_format=torch.channels_last)
            if weight.shape[1] == 1:  # PyTorch 2.13 gets narrow outputs wrong if it has its channels last
                weight = weight.contiguous()
            if self._packed:
                explicit = pads if pads[0] == pads[1] else (0, 0)
                weight = torch.ops.mkldnn._reorder_convolution_weight(weight, explicit, stride)
            self._weights.append(weight)

    def convolve(self, layer: int, x: Tensor, pad_y: bool = True) -> Tensor:
        """Convolution ``layer`` with its activation and normalisation, on ``x`` [n, channels, rows, columns].

        With "same" padding along x; along y only if ``pad_y``.
        """
        before, after = self._pads[layer]
        pads = [before if pad_y else 0, before]
        if before != after:
            x, pads = F.pad(x, (before, after, *((before, after) if pad_y else (0, 0)))), [0, 0]
        weight, bias, stride = self._weights[layer], self._encoder.conv[layer].bias, self._strides[layer]
        if not self._packed:
            return self._encoder.activate(layer, F.conv2d(x, weight, bias, stride, pads))  # type: ignore[arg-type]
        x = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, pads, stride, [1, 1], 1, "relu", [], "")
        return self._encoder.norm[layer](x) if self._encoder.norm else x


class Layers(Convolutions):
    """All layers of an encoder after the first convolution."""

    def __init__(self, encoder: Encoder, exact: Encoder, order: Sequence[int]) -> None:
        """``exact`` is ``encoder`` in float32, in which the last layer is computed; ``order`` that of its outputs."""
        super().__init__(encoder)
        device, last = encoder.dense.weight.device, exact.mean
        self._mean = last.weight[list(order)].to(device), last.bias[list(order)].to(device)
        self._dense: Tensor = encoder.dense.weight
        if self._packed:
            self._dense = torch.ops.mkldnn._reorder_linear_weight(self._dense)

    def mean(self, x: Tensor, first: int) -> Tensor:
        """The mean [n, latents] of the latents, from the input of convolution ``first`` on, in float32."""
        for layer in range(first, len(self._weights)):
            x = self.convolve(layer, x)
        x = x.permute(0, 2, 3, 1).flatten(1)
        pieces = torch.split(x, _AT_ONCE) if x.device.type == "cpu" else (x,)
        return torch.cat([F.linear(self._hidden(piece).float(), *self._mean) for piece in pieces])

    def _hidden(self, x: Tensor) -> Tensor:
        bias = self._encoder.dense.bias
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._dense, bias, "relu", [], "")  # type: ignore[no-any-return]
        return F.relu(F.linear(x, self._dense, bias), inplace=True)

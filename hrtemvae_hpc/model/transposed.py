"""The transposed convolution of a decoder, in the semantics of Keras' "same", made for training on CPUs.

Two things differ from PyTorch's own. The gradient of the bias is a separate sum: within the convolution, in bfloat16,
a CPU takes longer for it than for the rest of the backward pass. And an image of one channel is computed as blocks of
4 x 4 pixels held in 16 channels, which takes a CPU about a third of the time.
"""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 4


def transposed_convolution(x: Tensor, weight: Tensor, bias: Tensor, stride: int, crop: int) -> Tensor:
    """``x`` [n, inputs, size, size] to [n, outputs, size * stride, size * stride], in the type of ``x``.

    ``weight`` [inputs, outputs, kernel, kernel]; ``crop`` pixels are cut off at the top and left, what is left over at
    the bottom and right.
    """
    y: Tensor = _TransposedConvolution.apply(x, weight.to(x.dtype), bias.to(x.dtype), stride, crop)  # type: ignore[no-untyped-call]
    size = x.shape[-1] * stride
    return y if y.shape[-1] == size else y[..., :size, :size]


class _TransposedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, crop: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.crop = stride, crop
        if stride == weight.shape[1] == 1:
            return _one_channel(x, weight, bias, crop)
        return F.conv_transpose2d(x, weight, bias, stride, crop)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        more = (x.shape[-1] - 1) * ctx.stride + weight.shape[-1] - 2 * ctx.crop - gradient.shape[-1]
        whole = F.pad(gradient, (0, more, 0, more)) if more else gradient
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            whole, x, weight, None, [ctx.stride] * 2, [ctx.crop] * 2, [1, 1], True, [0, 0], 1, [True, True, False]
        )
        return of_x, of_weight, gradient.sum((0, 2, 3)), None, None


def _one_channel(x: Tensor, weight: Tensor, bias: Tensor, crop: int) -> Tensor:
    """The transposed convolution of stride 1 to one channel: a convolution with the mirrored kernel, block by block."""
    kernel, block = weight.shape[-1], math.gcd(_BLOCK, x.shape[-1])
    seen = block + kernel - 1
    blocks = weight[:, 0].flatten(1) @ _placed(kernel, block, weight.dtype, weight.device)
    blocks = blocks.view(-1, seen, seen, block**2).permute(3, 0, 1, 2).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x, blocks, bias.expand(block**2), block, kernel - 1 - crop)
    return F.pixel_shuffle(y, block)


@cache
def _placed(kernel: int, block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where a mirrored kernel lies for each pixel of a block: 0 or 1 [kernel**2, seen**2 * block**2]."""
    # Pixel d of a block sees the kernel d pixels further down or right.
    along = torch.stack([torch.eye(kernel, block + kernel - 1).roll(d, 1) for d in range(block)]).flip(1)
    return torch.einsum("aki,blj->klijab", along, along).flatten(2).flatten(0, 1).to(device, dtype)

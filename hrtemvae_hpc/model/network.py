"""Encoder and decoder as PyTorch modules, with the semantics of the published Keras networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture, Normalization, same_padding
from hrtemvae_hpc.model.transposed import transposed_convolution
from hrtemvae_hpc.schemas import short

_MOST_WEIGHTS = 2**28  # numbers, 1 GiB of them
N = TypeVar("N", bound=nn.Module)


def _same_convolution(conv: nn.Conv2d, x: Tensor) -> Tensor:
    before, after = same_padding(x.shape[-1], conv.kernel_size[0], conv.stride[0])
    if before == after:
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, padding=before)
    return F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, conv.bias, conv.stride)


def _valid_convolution(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, conv.stride)


def _same_transposed_convolution(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    # It crops what the forward convolution would have padded.
    crop, _ = same_padding(x.shape[-1] * conv.stride[0], conv.kernel_size[0], conv.stride[0])
    return transposed_convolution(x, conv.weight, conv.bias, conv.stride[0], crop)  # type: ignore[arg-type]


def _activate(x: Tensor, normalize: nn.Module | None, when: Normalization) -> Tensor:
    if normalize is None:
        return F.relu(x, inplace=True)
    if when == "before_activation":
        return F.relu(normalize(x), inplace=True)
    return normalize(F.relu(x, inplace=True))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Windows [n, 1, window, window] in 0..1 to the mean and log variance of their latents [n, latents]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        inputs = (1, *a.channels[:-1])
        self._convolution = _same_convolution if a.padding == "same" else _valid_convolution
        self.conv = nn.ModuleList(
            nn.Conv2d(i, o, a.kernel, s) for i, o, s in zip(inputs, a.channels, a.strides, strict=True)
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(o, a.epsilon) for o in a.channels if a.normalization != "none")
        self.dense = nn.Linear(a.sizes[-1] ** 2 * a.channels[-1], a.hidden)
        self.mean = nn.Linear(a.hidden, a.latents)
        self.log_var = nn.Linear(a.hidden, a.latents)

    def layers(self, x: Tensor, first: int, stop: int) -> Tensor:
        """Convolutions ``first:stop`` with their activations; ``x`` is what the one before returned."""
        for layer, conv in list(enumerate(self.conv))[first:stop]:
            x = self.activate(layer, self._convolution(conv, x))  # type: ignore[arg-type]
        return x

    def activate(self, layer: int, x: Tensor) -> Tensor:
        """Activation and normalisation of convolution ``layer``; ``x`` is overwritten."""
        return _activate(x, self.norm[layer] if self.norm else None, self.architecture.normalization)

    def hidden(self, x: Tensor, first: int = 0) -> Tensor:
        """The activations [n, hidden] that both latent layers read, from the input of convolution ``first`` on."""
        x = self.layers(x, first, len(self.conv))
        # The published networks flatten in (row, column, channel) order.
        return F.relu(self.dense(x.permute(0, 2, 3, 1).flatten(1)), inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(x)
        return self.mean(h), self.log_var(h)


class Decoder(nn.Module):
    """Latents [n, latents] to the logits of windows [n, 1, window, window]; their sigmoid is the window."""

    def __init__(self, architecture: Architecture, decoder: DecoderArchitecture) -> None:
        super().__init__()
        d = self.decoder = decoder
        self.dense = nn.Linear(architecture.latents, d.base**2 * d.base_channels)
        inputs = (d.base_channels, *d.channels)
        outputs = (*d.channels, 1)
        strides = (2,) * len(d.channels) + (1,)
        self.conv = nn.ModuleList(
            nn.ConvTranspose2d(i, o, d.kernel, s) for i, o, s in zip(inputs, outputs, strides, strict=True)
        )
        self.norm = nn.ModuleList(
            nn.BatchNorm2d(o, architecture.epsilon) for o in d.channels if d.normalization != "none"
        )

    def forward(self, z: Tensor) -> Tensor:
        d = self.decoder
        x = F.relu(self.dense(z), inplace=True).view(-1, d.base, d.base, d.base_channels).permute(0, 3, 1, 2)
        for layer, conv in enumerate(self.conv):
            x = _same_transposed_convolution(conv, x)  # type: ignore[arg-type]
            if layer < len(d.channels):
                x = _activate(x, self.norm[layer] if self.norm else None, d.normalization)
        return x


class VAE(nn.Module):
    """Encoder, reparametrisation and decoder."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.decoder is None:
            raise ValueError("a VAE needs an architecture with a decoder")
        self.encoder = Encoder(architecture)
        self.decoder = Decoder(architecture, architecture.decoder)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, mean and log variance for windows ``x`` and standard normal ``noise`` [n, latents]."""
        mean, log_var = self.encoder(x)
        return self.decoder(mean + torch.exp(0.5 * log_var) * noise), mean, log_var


def weights_of(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """The weights of the network that ``make`` makes, with their types and shapes, but without memory.

    Raises ValueError if they are more than any network here has.
    """
    with torch.device("meta"):
        weights = {name: tensor for name, tensor in make().state_dict().items() if tensor.is_floating_point()}
    if (count := sum(tensor.numel() for tensor in weights.values())) > _MOST_WEIGHTS:
        raise ValueError(f"a network of {count:,} weights is larger than the {_MOST_WEIGHTS:,} that are supported")
    return weights


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError unless ``found`` holds the names and shapes of the ``expected`` tensors, and no others."""
    for what, names in (("missing", expected.keys() - found), ("unexpected", found.keys() - expected)):
        if names:
            raise ValueError(f"tensor {short(min(names))} is {what}")
    for name, tensor in expected.items():
        if tuple(found[name]) != tuple(tensor.shape):
            raise ValueError(f"tensor {name} has shape {short(list(found[name]))}, not {list(tensor.shape)}")


def filled(make: Callable[[], N], weights: Mapping[str, Tensor]) -> N:
    """The network that ``make`` makes with ``weights``, in evaluation mode.

    Raises ValueError if they don't fit it or aren't finite, before any memory is allocated.
    """
    check_shapes(weights_of(make), {name: tensor.shape for name, tensor in weights.items()})
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds numbers that are not finite")
    network = make()
    network.load_state_dict(dict(weights), strict=False)  # without counts of batches, which only training needs
    return network.eval().requires_grad_(False)

"""What distinguishes one network from another: the published one from its relatives."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Padding = Literal["same", "valid"]
Normalization = Literal["none", "before_activation", "after_activation"]
Side = Annotated[int, Field(ge=1, le=1024)]  # pixels
Kernel = Annotated[int, Field(ge=1, le=64)]  # pixels
Width = Annotated[int, Field(ge=1, le=4096)]  # of a layer
Channels = Annotated[tuple[Width, ...], Field(max_length=16)]
# Tagged, so that a mistake is reported for what was given, one number or a list; the tags are left out of messages.
Strides = Annotated[
    Annotated[Kernel, Tag("stride[one]")] | Annotated[tuple[Kernel, ...], Field(max_length=16), Tag("stride[each]")],
    Discriminator(lambda given: "stride[each]" if isinstance(given, list | tuple) else "stride[one]"),
]
_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DecoderArchitecture(BaseModel):
    """Dense layer, reshape to ``base`` x ``base`` x ``base_channels``, transposed convolutions."""

    model_config = _CONFIG

    base: Side = Field(4, description="rows and columns after the reshape")
    base_channels: Width = Field(64, description="channels after the reshape")
    channels: Channels = Field((64, 64, 32, 32), description="channels of the stride-2 layers")
    kernel: Kernel = Field(4, description="rows and columns of every kernel")
    normalization: Normalization = Field("none", description="batch normalisation of the stride-2 layers")


class Architecture(BaseModel):
    """Encoder (and, where known, decoder) of one model; the defaults are the published PbS network."""

    model_config = _CONFIG

    window: Side = Field(64, ge=4, description="rows and columns of a window, pixels")
    channels: Channels = Field((32, 32, 64, 64), min_length=1, description="channels of the convolutions")
    kernel: Kernel = Field(4, description="rows and columns of every kernel")
    stride: Strides = Field(2, description="stride of every convolution, or a list with that of each")
    padding: Padding = Field(
        "same",
        description="same: zeros around each window, as published; valid: none, so that windows share all",
    )
    normalization: Normalization = Field("none", description="batch normalisation after each convolution")
    epsilon: float = Field(1e-3, gt=0, le=1, description="epsilon of the batch normalisation (Keras' default)")
    hidden: int = Field(4096, ge=1, le=2**17, description="width of the dense layer before the latents")
    latents: Width = Field(64, description="number of latent variables")
    decoder: DecoderArchitecture | None = Field(None, description="absent where only the encoder is known")

    @model_validator(mode="after")
    def _convolutions_fit_the_window(self) -> "Architecture":
        if len(self.strides) != len(self.channels):
            raise ValueError(f"{len(self.strides)} strides do not belong to {len(self.channels)} convolutions")
        if min(self.sizes) < 1:
            raise ValueError(f"nothing is left of {self.window} pixels after the convolutions; make some smaller")
        return self

    @model_validator(mode="after")
    def _decoder_returns_to_the_window(self) -> "Architecture":
        if self.decoder and self.decoder.base * 2 ** len(self.decoder.channels) != self.window:
            raise ValueError(
                f"a decoder from {self.decoder.base} pixels through {len(self.decoder.channels)} doublings "
                f"does not end at the window of {self.window} pixels"
            )
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution."""
        return self.stride if isinstance(self.stride, tuple) else (self.stride,) * len(self.channels)

    @property
    def pitch(self) -> int:
        """Pixels between neighbouring outputs of the last convolution."""
        return math.prod(self.strides)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows (= columns) of the input and after each convolution, pixels."""
        sizes = [self.window]
        for stride in self.strides:
            seen = sizes[-1] if self.padding == "same" else sizes[-1] - self.kernel + 1
            sizes.append(-(-seen // stride))
        return tuple(sizes)

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros that each convolution puts before and after an axis."""
        if self.padding == "valid":
            return ((0, 0),) * len(self.channels)
        return tuple(same_padding(size, self.kernel, s) for size, s in zip(self.sizes, self.strides, strict=False))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that "same" padding adds before and after an axis of ``size`` pixels.

    TensorFlow's rule: ``ceil(size / stride)`` outputs, an odd pixel goes after the axis
    (https://www.tensorflow.org/api_docs/python/tf/nn, section "Notes on padding").
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2

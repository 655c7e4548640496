"""Networks of the published family, as Keras saved them, as models of this program."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture, Normalization
from hrtemvae_hpc.model.keras_file import read_keras_file
from hrtemvae_hpc.model.keras_layers import BatchNormalization, C, Convolution, Dense, Layer, LayerConfig, Reshape
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.network import Decoder, Encoder, filled
from hrtemvae_hpc.model.saved_model import read_saved_model
from hrtemvae_hpc.schemas import mistake, short

Layers = list[Layer[LayerConfig]]
# Layers that change nothing here: where the sampling of a VAE is saved with its encoder, z_mean comes before it.
_IGNORED = {"InputLayer", "Flatten", "Dropout", "Dense", "Reshape", "Lambda", "Sampling"}


def import_keras(encoder_path: Path, decoder_path: Path | None = None) -> Model:
    """The model in a Keras encoder (and decoder) of the published family.

    Its latents keep the network's own order. Raises InputError if a file is neither a .keras file nor a SavedModel
    folder, or its layers are not of this family.
    """
    with _of_the_family(encoder_path):
        architecture, weights = _encoder(read_layers(encoder_path))
        encoder = filled(partial(Encoder, architecture), weights)
    decoder = None
    if decoder_path is not None:
        decoder = import_decoder(decoder_path, architecture)
        with _of_the_family(decoder_path):
            encoder.architecture = Architecture.model_validate(
                architecture.model_dump() | {"decoder": decoder.decoder.model_dump()}
            )
    return Model(
        name=short(encoder_path.stem),
        encoder=encoder,
        decoder=decoder,
        latent_order=tuple(range(architecture.latents)),
        provenance={
            "imported_from": [short(p.name) for p in (encoder_path, decoder_path) if p],
            "latent_order": "the network's own; its variance over the training set is not known",
        },
    )


def import_decoder(path: Path, encoder: Architecture) -> Decoder:
    """The Keras decoder in ``path``, for latents of ``encoder``. Raises InputError like ``import_keras``."""
    with _of_the_family(path):
        architecture, weights = _decoder(read_layers(path))
        return filled(partial(Decoder, encoder, architecture), weights)


@contextmanager
def _of_the_family(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InputError(f"{path}: not a network of the published family ({mistake(error)}).") from error


def read_layers(path: Path) -> Layers:
    """The layers of a .keras file or a SavedModel folder. Raises InputError if ``path`` is neither."""
    if is_file(path / "saved_model.pb"):
        return read_saved_model(path)
    if not is_file(path):
        raise InputError(f"{path}: there is no such .keras file or SavedModel folder.")
    return read_keras_file(path)


def _same_everywhere(what: str, values: list[int]) -> int:
    if len(set(values)) != 1:
        raise ValueError(f"the convolutions differ in {what}: {values}")
    return values[0]


def _of(layers: Layers, kind: type[C]) -> list[Layer[C]]:
    return [Layer(layer.kind, layer.config, layer.arrays) for layer in layers if isinstance(layer.config, kind)]


def _require_activation(layer: Layer[Convolution] | Layer[Dense], *expected: str) -> None:
    if layer.config.activation not in expected:
        raise ValueError(f"layer {layer.name} has activation {layer.config.activation!r}, expected {expected[0]!r}")


def _convolutions(
    layers: Layers, kind: str
) -> tuple[list[Layer[Convolution]], list[Layer[BatchNormalization]], Normalization]:
    """The convolutions, their batch normalisations, and the positions of these."""
    convolutions: list[Layer[Convolution]] = []
    norms: list[Layer[BatchNormalization]] = []
    when: Normalization = "none"
    linear = False  # the previous convolution still waits for its activation
    for layer in layers:
        if layer.kind == kind:
            if linear:
                raise ValueError(f"the convolution before layer {layer.name} has no activation")
            convolutions += _of([layer], Convolution)
            linear = convolutions[-1].config.activation == "linear"
        elif layer.kind == "BatchNormalization" and len(norms) == len(convolutions) - 1:
            when = "before_activation" if linear else "after_activation"
            norms += _of([layer], BatchNormalization)
        elif layer.kind in ("ReLU", "Activation"):
            linear = False
        elif layer.kind not in _IGNORED:
            raise ValueError(f"layer {layer.name} of class {short(layer.kind)} is not known there")
    if not convolutions:
        raise ValueError(f"there is no {kind} layer")
    return convolutions, norms, when


def _weights(
    convolutions: list[Layer[Convolution]],
    norms: list[Layer[BatchNormalization]],
    dense: dict[str, Layer[Dense]],
) -> dict[str, torch.Tensor]:
    """All weights by PyTorch's names; those of ``dense`` layers by the names there."""
    arrays: dict[str, np.ndarray] = {}
    for i, convolution in enumerate(convolutions):
        # Keras: [row, column, in, out], transposed [row, column, out, in]; PyTorch has rows and columns last, in turn.
        arrays[f"conv.{i}.weight"] = convolution.arrays[0].transpose(3, 2, 0, 1)
        arrays[f"conv.{i}.bias"] = convolution.arrays[1]
    for i, norm in enumerate(norms):
        names = ("weight", "bias", "running_mean", "running_var")
        arrays |= {f"norm.{i}.{name}": array for name, array in zip(names, norm.arrays, strict=True)}
    for name, layer in dense.items():
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = layer.arrays[0].T, layer.arrays[1]
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _encoder(layers: Layers) -> tuple[Architecture, dict[str, torch.Tensor]]:
    if any(layer.kind == "Conv2DTranspose" for layer in layers):
        raise ValueError("it is a decoder; name its encoder first")
    convolutions, norms, when = _convolutions(layers, "Conv2D")
    dense = _of(layers, Dense)
    if len(dense) != 3:
        raise ValueError(f"expected three dense layers (hidden, z_mean, z_log_var), found {len(dense)}")
    hidden, *latents = dense
    mean = next((layer for layer in latents if layer.name == "z_mean"), latents[0])
    log_var = next(layer for layer in latents if layer is not mean)
    _require_activation(hidden, "relu")
    for layer in latents:
        _require_activation(layer, "linear")
    for convolution in convolutions:
        _require_activation(convolution, "relu", "linear")
    shape = layers[0].config.batch_shape or layers[0].config.batch_input_shape
    if shape is None or len(shape) != 4 or shape[1] is None:
        raise ValueError(f"layer {layers[0].name} does not say how large a window is")
    architecture = Architecture(
        window=shape[1],
        channels=tuple(c.config.filters for c in convolutions),
        kernel=_same_everywhere("kernel", [c.config.kernel_size for c in convolutions]),
        stride=_same_everywhere("stride", [c.config.strides for c in convolutions]),
        normalization=when,
        epsilon=norms[0].config.epsilon if norms else 1e-3,
        hidden=hidden.config.units,
        latents=mean.config.units,
    )
    return architecture, _weights(convolutions, norms, {"dense": hidden, "mean": mean, "log_var": log_var})


def _decoder(layers: Layers) -> tuple[DecoderArchitecture, dict[str, torch.Tensor]]:
    convolutions, norms, when = _convolutions(layers, "Conv2DTranspose")
    dense, reshape = _of(layers, Dense), _of(layers, Reshape)
    if len(dense) != 1 or len(reshape) != 1:
        raise ValueError(f"expected one dense layer and one reshape, found {len(dense)} and {len(reshape)}")
    _require_activation(dense[0], "relu")
    for convolution in convolutions[:-1]:
        _require_activation(convolution, "relu", "linear")
    _require_activation(convolutions[-1], "sigmoid")
    if convolutions[-1].config.filters != 1:
        raise ValueError(f"layer {convolutions[-1].name} has {convolutions[-1].config.filters} filters, expected 1")
    strides = [c.config.strides for c in convolutions]
    if strides != [2] * (len(convolutions) - 1) + [1]:
        raise ValueError(f"expected transposed convolutions of stride 2 and a last one of 1, found {strides}")
    base, base_columns, base_channels = reshape[0].config.target_shape
    if base != base_columns:
        raise ValueError(f"the decoder reshapes to {base} x {base_columns}, not to a square")
    architecture = DecoderArchitecture(
        base=base,
        base_channels=base_channels,
        channels=tuple(c.config.filters for c in convolutions[:-1]),
        kernel=_same_everywhere("kernel", [c.config.kernel_size for c in convolutions]),
        normalization=when,
    )
    return architecture, _weights(convolutions, norms, {"dense": dense[0]})

"""Networks of the published family, as Keras saved them, as models of this program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture, Normalization
from hrtemvae_hpc.model.checkpoint import Model, fill
from hrtemvae_hpc.model.keras_file import read_keras_file
from hrtemvae_hpc.model.keras_layers import Layer
from hrtemvae_hpc.model.network import Decoder, Encoder
from hrtemvae_hpc.model.saved_model import read_saved_model

# Layers that change nothing here: where the sampling of a VAE is saved with its encoder, z_mean comes before it.
_IGNORED = {"InputLayer", "Flatten", "Dropout", "Dense", "Reshape", "Lambda", "Sampling"}


def import_keras(encoder_path: Path, decoder_path: Path | None = None) -> Model:
    """The model in a Keras encoder (and decoder) of the published family.

    Its latents keep the network's own order. Raises InputError where a file is neither a .keras file nor a SavedModel
    folder, or its layers are not of this family.
    """
    with _of_the_family(encoder_path):
        architecture, encoder_state = _encoder(read_layers(encoder_path))
        encoder = Encoder(architecture)
        fill(encoder, encoder_state)
    decoder = None
    if decoder_path is not None:
        decoder = import_decoder(decoder_path, architecture)
        with _of_the_family(decoder_path):
            encoder.architecture = Architecture.model_validate(
                architecture.model_dump() | {"decoder": decoder.decoder.model_dump()}
            )
    return Model(
        name=encoder_path.stem,
        encoder=encoder.eval().requires_grad_(False),
        decoder=decoder,
        latent_order=tuple(range(architecture.latents)),
        provenance={
            "imported_from": [p.name for p in (encoder_path, decoder_path) if p],
            "latent_order": "the network's own; its variance over the training set is not known",
        },
    )


def import_decoder(path: Path, encoder: Architecture) -> Decoder:
    """The Keras decoder in ``path``, for latents of ``encoder``. Raises InputError like ``import_keras``."""
    with _of_the_family(path):
        architecture, state = _decoder(read_layers(path))
        decoder = Decoder(encoder, architecture)
        fill(decoder, state)
    return decoder.eval().requires_grad_(False)


@contextmanager
def _of_the_family(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, StopIteration, ValidationError) as error:
        what = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: not a network of the published family ({what}).") from error


def read_layers(path: Path) -> list[Layer]:
    """The layers of a .keras file or a SavedModel folder. Raises InputError where ``path`` is neither."""
    if (path / "saved_model.pb").is_file():
        return read_saved_model(path)
    if not is_file(path):
        raise InputError(f"{path}: there is no such .keras file or SavedModel folder.")
    return read_keras_file(path)


def _require(layer: Layer, **expected: Any) -> None:
    for key, value in expected.items():
        if layer.config.get(key) != value:
            raise ValueError(f"layer {layer.name} has {key} {layer.config.get(key)!r}, expected {value!r}")


def _square(layer: Layer, key: str) -> int:
    a, b = layer.config[key]
    if a != b:
        raise ValueError(f"layer {layer.name} has unequal {key} {a} and {b}")
    return int(a)


def _same_everywhere(what: str, values: list[int]) -> int:
    if len(set(values)) != 1:
        raise ValueError(f"the convolutions differ in {what}: {values}")
    return values[0]


def _convolutions(layers: list[Layer], class_name: str) -> tuple[list[Layer], list[Layer], Normalization]:
    """The convolutions, their batch normalisations, and where these stand."""
    convolutions: list[Layer] = []
    norms: list[Layer] = []
    when: Normalization = "none"
    linear = False  # the convolution before still waits for its activation
    for layer in layers:
        kind = layer.class_name
        if kind == class_name:
            if linear:
                raise ValueError(f"the convolution before layer {layer.name} has no activation")
            _require(layer, padding="same", data_format="channels_last", use_bias=True, dilation_rate=[1, 1])
            convolutions.append(layer)
            linear = layer.config["activation"] == "linear"
        elif kind == "BatchNormalization" and len(norms) == len(convolutions) - 1:
            when = "before_activation" if linear else "after_activation"
            norms.append(layer)
        elif kind == "ReLU" or (kind == "Activation" and layer.config["activation"] == "relu"):
            linear = False
        elif kind not in _IGNORED:
            raise ValueError(f"layer {layer.name} of class {kind} is not known there")
    if not convolutions:
        raise ValueError(f"there is no {class_name} layer")
    return convolutions, norms, when


def _norm_state(prefix: str, layer: Layer) -> dict[str, torch.Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{n}": torch.from_numpy(a) for n, a in zip(names, layer.arrays, strict=True)}


def _dense_state(prefix: str, layer: Layer) -> dict[str, torch.Tensor]:
    kernel, bias = layer.arrays
    return {f"{prefix}.weight": torch.from_numpy(kernel.T.copy()), f"{prefix}.bias": torch.from_numpy(bias)}


def _encoder(layers: list[Layer]) -> tuple[Architecture, dict[str, torch.Tensor]]:
    if any(layer.class_name == "Conv2DTranspose" for layer in layers):
        raise ValueError("it is a decoder; name its encoder first")
    convolutions, norms, when = _convolutions(layers, "Conv2D")
    dense = [layer for layer in layers if layer.class_name == "Dense"]
    if len(dense) != 3:
        raise ValueError(f"expected three dense layers (hidden, z_mean, z_log_var), found {len(dense)}")
    _require(dense[0], activation="relu")
    named = {layer.name: layer for layer in dense[1:]}
    mean = named.get("z_mean", dense[1])
    log_var = next(layer for layer in dense[1:] if layer is not mean)
    for layer in (mean, log_var):
        _require(layer, activation="linear")
    for layer in convolutions:
        if layer.config["activation"] not in ("relu", "linear"):
            raise ValueError(f"layer {layer.name} has activation {layer.config['activation']!r}, expected 'relu'")
    first = layers[0].config.get("batch_shape") or layers[0].config["batch_input_shape"]
    architecture = Architecture(
        window=int(first[1]),
        channels=tuple(int(c.config["filters"]) for c in convolutions),
        kernel=_same_everywhere("kernel", [_square(c, "kernel_size") for c in convolutions]),
        stride=_same_everywhere("stride", [_square(c, "strides") for c in convolutions]),
        normalization=when,
        epsilon=float(norms[0].config["epsilon"]) if norms else 1e-3,
        hidden=int(dense[0].config["units"]),
        latents=int(mean.config["units"]),
    )
    state: dict[str, torch.Tensor] = {}
    for i, layer in enumerate(convolutions):
        # Keras: [row, column, in, out]; PyTorch: [out, in, row, column].
        state[f"conv.{i}.weight"] = torch.from_numpy(layer.arrays[0].transpose(3, 2, 0, 1).copy())
        state[f"conv.{i}.bias"] = torch.from_numpy(layer.arrays[1])
    for i, layer in enumerate(norms):
        state |= _norm_state(f"norm.{i}", layer)
    for prefix, layer in (("dense", dense[0]), ("mean", mean), ("log_var", log_var)):
        state |= _dense_state(prefix, layer)
    return architecture, state


def _decoder(layers: list[Layer]) -> tuple[DecoderArchitecture, dict[str, torch.Tensor]]:
    convolutions, norms, when = _convolutions(layers, "Conv2DTranspose")
    dense = [layer for layer in layers if layer.class_name == "Dense"]
    reshape = next(layer for layer in layers if layer.class_name == "Reshape")
    _require(dense[0], activation="relu")
    _require(convolutions[-1], activation="sigmoid", filters=1)
    for layer in convolutions[:-1]:
        if layer.config["activation"] not in ("relu", "linear"):
            raise ValueError(f"layer {layer.name} has activation {layer.config['activation']!r}, expected 'relu'")
    strides = [_square(c, "strides") for c in convolutions]
    if strides != [2] * (len(convolutions) - 1) + [1]:
        raise ValueError(f"expected transposed convolutions of stride 2 and a last one of 1, found {strides}")
    base, base_columns, base_channels = reshape.config["target_shape"]
    if base != base_columns:
        raise ValueError(f"the decoder reshapes to {base} x {base_columns}, not to a square")
    architecture = DecoderArchitecture(
        base=base,
        base_channels=base_channels,
        channels=tuple(int(c.config["filters"]) for c in convolutions[:-1]),
        kernel=_same_everywhere("kernel", [_square(c, "kernel_size") for c in convolutions]),
        normalization=when,
    )
    state = _dense_state("dense", dense[0])
    for i, layer in enumerate(convolutions):
        # Keras: [row, column, out, in]; PyTorch: [in, out, row, column].
        state[f"conv.{i}.weight"] = torch.from_numpy(layer.arrays[0].transpose(3, 2, 0, 1).copy())
        state[f"conv.{i}.bias"] = torch.from_numpy(layer.arrays[1])
    for i, layer in enumerate(norms):
        state |= _norm_state(f"norm.{i}", layer)
    return architecture, state

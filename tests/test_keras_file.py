"""Import of networks saved by Keras itself, and of the oracle's."""

import os
import shutil
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from commands import Program
from conftest import assert_refused
from keras import layers

from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.keras_import import import_decoder, import_keras
from hrtemvae_hpc.model.model_file import load_model


def keras_encoder(
    window: int, channels: tuple[int, ...], kernel: int, norm: str, hidden: int, latents: int
) -> keras.Model:
    inputs = x = keras.Input((window, window, 1))
    for c in channels:
        activation = None if norm == "before_activation" else "relu"
        x = layers.Conv2D(c, kernel, strides=2, padding="same", activation=activation)(x)
        if norm != "none":
            x = layers.BatchNormalization()(x)
        if norm == "before_activation":
            x = layers.ReLU()(x)
    x = layers.Dense(hidden, activation="relu")(layers.Flatten()(x))
    outputs = [layers.Dense(latents, name="z_mean")(x), layers.Dense(latents, name="z_log_var")(x)]
    return keras.Model(inputs, outputs)


def keras_decoder(
    base: int, base_channels: int, channels: tuple[int, ...], kernel: int, norm: str, latents: int
) -> keras.Model:
    inputs = keras.Input((latents,))
    x = layers.Dense(base**2 * base_channels, activation="relu")(inputs)
    x = layers.Reshape((base, base, base_channels))(x)
    for c in channels:
        x = layers.Conv2DTranspose(c, kernel, strides=2, padding="same", activation="relu")(x)
        if norm != "none":
            x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Conv2DTranspose(1, kernel, padding="same", activation="sigmoid")(x))


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ((64, (32, 32, 64, 64), 4, "none", 128, 64), (4, 64, (64, 64, 32, 32), 4, "none", 64)),
        ((32, (64, 64, 32, 32), 3, "after_activation", 256, 64), (2, 32, (32, 32, 64, 64), 3, "after_activation", 64)),
        ((32, (8, 8), 3, "before_activation", 16, 4), (8, 8, (8, 8), 3, "none", 4)),
    ],
    ids=["PbS", "CdSe", "batch norm before ReLU"],
)
def test_import_equals_keras(tmp_path: Path, encoder: tuple[Any, ...], decoder: tuple[Any, ...]) -> None:
    random = np.random.default_rng(0)
    networks = keras_encoder(*encoder), keras_decoder(*decoder)
    paths = tmp_path / "encoder.keras", tmp_path / "decoder.keras"
    for network, path in zip(networks, paths, strict=True):
        for v in network.weights:
            fan_in = max(1, int(np.prod(v.shape[:-1])))
            values = random.normal(0, fan_in**-0.5, v.shape)
            v.assign(np.abs(1 + values) if "variance" in v.path else values)
        network.save(path)

    model = import_keras(*paths)

    assert model.architecture.normalization == encoder[3]
    x = random.random((5, encoder[0], encoder[0], 1)).astype(np.float32)
    expected = [t.detach().numpy() for t in networks[0](x)]
    for ours, theirs in zip(model.encoder(torch.from_numpy(x).permute(0, 3, 1, 2)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    z = random.normal(size=(5, encoder[-1])).astype(np.float32)
    assert model.decoder is not None
    windows = torch.sigmoid(model.decoder(torch.from_numpy(z)))[:, 0]
    np.testing.assert_allclose(windows, networks[1](z).detach().numpy()[..., 0], atol=1e-5)


def test_published_saved_models_give_what_tensorflow_gave(shared: Path) -> None:
    expected = np.load(shared / "published/cdse_encoder.expected.npz")
    model = import_keras(shared / "published/cdse_encoder")
    assert (model.architecture.window, model.architecture.kernel) == (32, 3)
    assert model.architecture.normalization == "after_activation"
    with torch.inference_mode():
        mean, log_var = model.encoder(torch.from_numpy(expected["input"].transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(mean.numpy(), expected["z_mean"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(log_var.numpy(), expected["z_log_var"], rtol=0, atol=1e-5)

    expected = np.load(shared / "published/pbs_decoder.expected.npz")
    decoder = import_decoder(shared / "published/pbs_decoder", Architecture())
    with torch.inference_mode():
        decoded = torch.sigmoid(decoder(torch.from_numpy(expected["input"])))
    np.testing.assert_allclose(decoded.numpy()[:, 0], expected["conv2d_transpose_39"][..., 0], rtol=0, atol=1e-5)


def test_saved_models_on_the_command_line(hrtemvae: Program, shared: Path, tmp_path: Path) -> None:
    outcome = hrtemvae("model", "import-keras", shared / "published/cdse_encoder", "-o", "cdse.safetensors")
    assert outcome.code == 0, outcome.text
    assert load_model(tmp_path / "cdse.safetensors").architecture.window == 32
    alone = hrtemvae("model", "import-keras", shared / "published/pbs_decoder", "-o", "d.safetensors")
    assert_refused(alone, "pbs_decoder", "name its encoder first")
    pair = [shared / "published/cdse_encoder", shared / "published/pbs_decoder"]
    assert_refused(hrtemvae("model", "import-keras", *pair, "-o", "d.safetensors"), "pbs_decoder", "window of 32")


@pytest.mark.parametrize("file", ["variables.index", "variables.data-00000-of-00001", "keras_metadata.pb"])
def test_damaged_saved_models_are_refused(hrtemvae: Program, shared: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(shared / "published/cdse_encoder", tmp_path / "m", copy_function=shutil.copyfile)
    for folder in (tmp_path / "m", tmp_path / "m/variables"):
        folder.chmod(0o755)
    path = next((tmp_path / "m").rglob(file))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(hrtemvae("model", "import-keras", "m", "-o", "m.safetensors"), "m: not a SavedModel folder")

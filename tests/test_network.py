"""Networks, model files and published weights against oracles."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Outcome, Program
from conftest import TINY, assert_refused, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_encoder
from safetensors.torch import save_file

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture, same_padding
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.model.keras_import import import_keras
from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, Model, load_model, save_model
from hrtemvae_hpc.model.network import VAE, Decoder
from hrtemvae_hpc.model.periods import reconstructed_periods, reconstruction
from hrtemvae_hpc.model.transposed import transposed_convolution


@given(size=st.integers(1, 200), kernel=st.integers(1, 9), stride=st.integers(1, 5))
def test_same_padding_is_the_least_that_gives_every_output(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    outputs = -(-size // stride)
    assert (size + before + after - kernel) // stride + 1 >= outputs
    assert after - before in (0, 1)
    if before + after > 0:
        assert (size + before + after - 1 - kernel) // stride + 1 < outputs


@settings(deadline=None)
@given(
    kernel=st.integers(2, 7),
    stride=st.integers(1, 2),
    size=st.integers(1, 17),
    outputs=st.integers(1, 3),
)
def test_transposed_convolution_and_its_gradients(kernel: int, stride: int, size: int, outputs: int) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=random, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, size, size), (3, outputs, kernel, kernel), (outputs,))
    )
    crop, _ = same_padding(size * stride, kernel, stride)
    own = transposed_convolution(x, weight, bias, stride, crop)
    whole = torch.nn.functional.conv_transpose2d(x, weight, bias, stride)
    torchs = whole[..., crop : crop + size * stride, crop : crop + size * stride]
    torch.testing.assert_close(own, torchs)
    gradient = torch.randn(own.shape, generator=random, dtype=torch.float64)
    gradients = (torch.autograd.grad(y, (x, weight, bias), gradient) for y in (own, torchs))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "architecture",
    [
        TINY,
        Architecture(window=32, channels=(3, 4), kernel=3, hidden=8, latents=3, normalization="after_activation"),
        Architecture(window=17, channels=(3,), kernel=5, hidden=8, latents=3, normalization="before_activation"),
        Architecture(window=20, channels=(2, 3, 4), kernel=2, stride=3, hidden=5, latents=2),
    ],
)
def test_encoder_agrees_with_a_plain_loop(architecture: Architecture) -> None:
    encoder = random_model(architecture).encoder
    window = np.random.default_rng(0).random((architecture.window, architecture.window))
    mean, _ = encoder(torch.from_numpy(window).float()[None, None])
    np.testing.assert_allclose(mean[0], plain_encoder(encoder, window), rtol=1e-4, atol=1e-5)


def test_published_sizes() -> None:
    a = Architecture(decoder=DecoderArchitecture())
    assert a.sizes == (64, 32, 16, 8, 4)
    assert Decoder(a, DecoderArchitecture())(torch.zeros(2, 64)).shape == (2, 1, 64, 64)


def test_decoder_must_end_at_the_window() -> None:
    with pytest.raises(ValueError, match="does not end at the window of 60"):
        Architecture(window=60, decoder=DecoderArchitecture())


@pytest.mark.parametrize("normalization", ["none", "after_activation"])
def test_model_file_keeps_everything(tmp_path: Path, normalization: str) -> None:
    architecture = Architecture.model_validate(TINY.model_dump() | {"normalization": normalization})
    model = random_model(architecture)
    path = tmp_path / "mödel 1.safetensors"
    save_model(model, path)
    loaded = load_model(path)
    assert loaded.architecture == architecture
    assert loaded.latent_order == model.latent_order
    x = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(loaded.encoder(x), model.encoder(x), rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == [path]


def test_bundled_models_are_found_by_name() -> None:
    published, dense = load_model("published"), load_model("dense")
    assert published.architecture == Architecture(decoder=DecoderArchitecture())
    assert (dense.architecture.padding, dense.architecture.pitch, dense.scaling) == ("valid", 8, "local")
    assert load_model(DEFAULT_MODEL).sha256 == published.sha256
    with pytest.raises(InputError, match=r"nothing: there is no such model file.*published, dense"):
        load_model("nothing")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_have_a_scale_and_their_latents_in_order(name: str) -> None:
    model = load_model(name)
    assert model.trained_on.pixel_size_nm == pytest.approx(0.0145)
    variance = np.array(model.provenance["variance_over_training"])
    assert (np.diff(variance[list(model.latent_order)]) >= 0).all()
    assert BUNDLED[name].stat().st_size < 20e6


def test_periods_that_the_bundled_model_reconstructs() -> None:
    model = load_model(DEFAULT_MODEL)
    assert reconstructed_periods(model) == (14, 27)
    # As measured independently of this code, on other square lattices.
    measured = {11: 0.09, 12: 0.41, 13: 0.86, 14: 0.98, 19: 0.98, 24: 0.98, 28: 0.88}
    assert model.decoder is not None
    assert reconstruction(model, model.decoder, list(measured)) == pytest.approx(list(measured.values()), abs=0.03)


def test_a_model_that_has_learned_nothing_reconstructs_no_period() -> None:
    torch.manual_seed(0)
    vae = VAE(Architecture(decoder=DecoderArchitecture())).eval()
    model = Model("untrained", vae.encoder, vae.decoder, tuple(range(64)))
    assert reconstructed_periods(model) is None
    assert reconstructed_periods(dataclasses.replace(model, decoder=None)) is None


def test_models_that_can_not_be_used(tmp_path: Path, tiny_model: Model) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(InputError) as error:
            load_model(path)
        assert str(path) in str(error.value)
        return str(error.value)

    assert "no such model file" in refused(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors at all")
    assert "not a readable model file" in refused(text)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    assert "not a model of this program" in refused(foreign)
    other = tmp_path / "other.safetensors"
    save_model(tiny_model, other)
    whole = other.read_bytes()
    other.write_bytes(whole[: len(whole) // 2])
    assert "not a readable model file" in refused(other)
    broken = random_model(TINY)
    broken.encoder.mean.bias[0] = torch.nan
    save_model(broken, other)
    assert "mean.bias holds numbers that are not finite" in refused(other)
    other.write_bytes(whole.replace(b'\\"hidden\\": 24', b'\\"hidden\\": 25'))
    assert "do not belong together" in refused(other)


def test_import_reproduces_the_keras_encoder(shared: Path) -> None:
    model = import_keras(shared / "oracle" / "encoder.keras")
    assert model.architecture == Architecture()
    assert model.latent_order == tuple(range(64))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda p: p.unlink(), "no such .keras file"),
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "not a readable Keras 3 file"),
        (lambda p: _edit(p, "Conv2D", "Conv3D"), "not a network of the published family"),
        (
            lambda p: _edit(p, '"activation": "relu"', '"activation": "tanh"'),
            "input should be 'relu', 'linear' or 'sigmoid', not 'tanh'",
        ),
        (
            lambda p: _edit(p, '"activation": "linear"', '"activation": "relu"'),
            "has activation 'relu', expected 'linear'",
        ),
        (lambda p: _edit(p, '"Flatten"', '"LeakyReLU"'), "of class LeakyReLU is not known"),
        (
            lambda p: _edit(p, '"padding": "same"', '"padding": "valid"'),
            "`padding`: input should be 'same', not 'valid'",
        ),
    ],
)
def test_import_refuses_other_files(
    hrtemvae: Program, shared: Path, tmp_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "encoder.keras"
    path.write_bytes((shared / "oracle" / "encoder.keras").read_bytes())
    break_it(path)
    outcome: Outcome = hrtemvae("model", "import-keras", path, "-o", "out.safetensors")
    assert_refused(outcome, str(path), words)
    assert not (tmp_path / "out.safetensors").exists()


def _edit(path: Path, old: str, new: str) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = files["config.json"].decode()
    assert old in config
    files["config.json"] = config.replace(old, new).encode()
    json.loads(files["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)

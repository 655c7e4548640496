"""Which windows the latents describe: against a plain loop, and on lattices that the bundled model knows or doesn't."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from commands import Program
from conftest import drifting_pixels, random_model
from scipy import stats

from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture
from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, Model, load_model, save_model
from hrtemvae_hpc.model.network import Decoder
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.reconstruction import Reconstruction

CPU = torch.device("cpu")
DECODER = DecoderArchitecture(base=4, base_channels=3, channels=(4, 3))
SMALL = Architecture(window=16, channels=(4, 6), hidden=24, latents=5, decoder=DECODER)


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load_model(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def small() -> Model:
    encoder_only = random_model(SMALL)
    decoder = Decoder(SMALL, DECODER).eval().requires_grad_(False)
    return Model("small", encoder_only.encoder, decoder, encoder_only.latent_order)


def correlations(model: Model, pixels: np.ndarray, step: int) -> np.ndarray:
    engine = Engine(model, CPU, "fp32", "window", step)
    z, valid = engine.encode(pixels, np.ones((len(pixels), 1), bool))
    return Reconstruction(model, CPU, step).correlations(pixels, z, valid)


def plain(model: Model, pixels: np.ndarray, row: int, column: int) -> float:
    """Of the window whose first pixel is at ``row``, ``column``."""
    size = model.architecture.window
    windows = pixels[:, row : row + size, column : column + size].astype(np.float32)
    there = [t for t, w in enumerate(windows) if np.isfinite(w).all() and w.min() < w.max()]
    if len(there) < 3:
        return math.nan
    n, alike, same = len(there), [], []
    for k, other in ((0, 1), (n // 2, n // 2 - 1), (n - 1, n - 2)):
        window, neighbour = windows[there[k]], windows[there[other]]
        scaled = (window - window.min()) / (window.max() - window.min())
        assert model.decoder is not None
        decoded = torch.sigmoid(model.decoder(model.encoder(torch.from_numpy(scaled)[None, None])[0]))
        alike.append(stats.pearsonr(window.ravel(), decoded.detach().numpy().ravel()).statistic)
        same.append(stats.pearsonr(window.ravel(), neighbour.ravel()).statistic)
    r = np.mean(same)
    return float(min(np.mean(alike) / math.sqrt(r), 1)) if r >= 0.05 else math.nan


@pytest.mark.parametrize(("step", "every"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_agrees_with_a_plain_loop(small: Model, step: int, every: int) -> None:
    pixels = drifting_pixels(7, 16 + 4 * step, 16 + 2 * step + 1).astype(np.float64)
    pixels[2, 3, 4] = np.nan
    pixels[1:, : 16 + step, :16] = 9.0
    found = correlations(small, pixels, step)
    assert found.shape == (5, 3 if step > 1 else 4)
    for i, j in np.ndindex(found.shape):
        row, column = (
            min(n // every * every + every // 2, size - 1) for n, size in zip((i, j), found.shape, strict=True)
        )
        expected = plain(small, pixels, row * step, column * step)
        np.testing.assert_allclose(found[i, j], expected, atol=2e-5)
    assert np.isnan(found).any() == (every == 1)


def lattice(period: float, dose: float, seed: int, frames: int = 4, size: int = 88) -> np.ndarray:
    """Frames [frames, size, size] of a square lattice of dark spots, somewhat turned, under Poisson noise."""
    random = np.random.default_rng(seed)
    angle, (a, b) = random.uniform(-0.1, 0.1), random.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size] * 2 * np.pi / period
    spots = np.exp(
        1.4
        * (np.cos(y * np.cos(angle) - x * np.sin(angle) + a) + np.cos(x * np.cos(angle) + y * np.sin(angle) + b) - 2)
    )
    image = 1 - 0.6 * spots
    return random.poisson(dose * image, (frames, size, size)).astype(np.uint16)


@pytest.mark.parametrize("dose", [30, 1000])
def test_lattices_that_the_bundled_model_does_not_know_are_found(bundled: Model, dose: float) -> None:
    for period in (14, 16, 18.5, 21, 24):
        known = np.concatenate([correlations(bundled, lattice(period, dose, seed), 8) for seed in range(3)])
        assert known.min() > 0.7, period
    for period in (8, 11):
        unknown = np.concatenate([correlations(bundled, lattice(period, dose, seed), 8) for seed in range(3)])
        assert unknown.max() < 0.3, period


def test_noise_is_not_judged(bundled: Model) -> None:
    noise = np.random.default_rng(0).poisson(30, (4, 88, 88))
    assert np.isnan(correlations(bundled, noise, 8)).all()


def reconstruction_of(run: Program, model: Path, *words: object, **how: Any) -> np.ndarray | None:
    outcome = run("analyze", "m.h5", "--model", model, "-o", "maps.h5", "--restart", *words, **how)
    assert outcome.code == 0, outcome.text
    with open_result(run.folder / "maps.h5") as result:
        return result.reconstruction


def test_a_result_holds_a_map_of_it(hrtemvae: Program, small: Model, tiny_model_path: Path, tmp_path: Path) -> None:
    save_model(small, tmp_path / "small.safetensors")
    pixels = drifting_pixels(5, 60, 90)
    pixels[2:, 44:, :16] = 0
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    words = tmp_path / "small.safetensors", "--drift", "none", "--step", 4
    alone = reconstruction_of(hrtemvae, *words)
    assert alone is not None
    assert np.isnan(alone[-1, 0])
    for i, j in ((1, 1), (7, 3), (9, 9), (11, 17)):  # one of each four windows
        np.testing.assert_array_equal(alone[i // 2 * 2 : i // 2 * 2 + 2, j // 2 * 2 : j // 2 * 2 + 2], alone[i, j])
        np.testing.assert_allclose(alone[i, j], plain(small, pixels, 4 * i, 4 * j), atol=2e-5)
    tiles = {"script": "paced.py", "variables": {"HRTEMVAE_TILES": "1x2"}}
    others = reconstruction_of(
        hrtemvae, tmp_path / "small.safetensors", "--drift", "none", "--step", 4, ranks=2, **tiles
    )
    np.testing.assert_array_equal(alone, others)
    assert reconstruction_of(hrtemvae, tiny_model_path) is None  # it has no decoder


def test_a_model_without_a_decoder_understands_nothing(tiny_model: Model) -> None:
    with pytest.raises(ValueError, match="has no decoder"):
        Reconstruction(tiny_model, CPU, 8)

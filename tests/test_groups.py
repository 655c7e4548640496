"""Groups of latents: the lattices that they come from, and how models, results and pages keep them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, random_model
from results import LATENTS, make_up_result
from safetensors import safe_open

from hrtemvae_hpc import api
from hrtemvae_hpc.evaluation import groups
from hrtemvae_hpc.evaluation.groups import Group, find_groups
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.maps.page_data import map_pictures
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.model.model_file import load_model, save_model, store_groups
from hrtemvae_hpc.simulation.changes import (
    ALONG_X,
    ALONG_Y,
    CHANGES,
    CONTRAST,
    EDGE,
    FOCUS,
    ROTATION,
    changing_windows,
)

PERIOD, SIZE, COUNT, FRAMES = 20.0, 128, 3, 5
FINE = 512  # samples of a spectrum
GROUPS = {"rotation": (2, 0), "focus": (1,)}


def windows_of(change: str) -> np.ndarray:
    return changing_windows(change, COUNT, FRAMES, SIZE, (PERIOD, PERIOD), torch.Generator().manual_seed(1)).numpy()


def spectra(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of a series [frames, size, size], and frequencies along y and x, of periods near that of the lattice."""
    taper = np.hanning(SIZE)
    spectrum = np.fft.fft2((windows - windows.mean((1, 2), keepdims=True)) * np.outer(taper, taper), (FINE, FINE))
    fy, fx = np.meshgrid(np.fft.fftfreq(FINE), np.fft.fftfreq(FINE), indexing="ij")
    near = abs(np.hypot(fy, fx) * PERIOD - 1) < 0.15
    return spectrum[:, near], fy[near], fx[near]


@pytest.mark.parametrize("change", CHANGES)
def test_windows_begin_with_a_lattice_of_the_period(change: str) -> None:
    windows = windows_of(change)
    assert windows.shape == (COUNT, FRAMES, SIZE, SIZE)
    np.testing.assert_array_equal(windows.min((2, 3)), 0)
    np.testing.assert_array_equal(windows.max((2, 3)), 1)
    strength, _ = find_fringes(torch.from_numpy(windows[:, 0]))
    assert (strength > 40).all()
    for series in windows:
        spectrum, fy, fx = spectra(series[:1])
        peak = abs(spectrum[0]).argmax()
        assert np.hypot(fy[peak], fx[peak]) == pytest.approx(1 / PERIOD, rel=0.06)


@pytest.mark.parametrize("change", [ALONG_Y, ALONG_X])
def test_a_translation_is_the_one_of_the_fourier_shift_theorem(change: str) -> None:
    for series in windows_of(change):
        spectrum, fy, fx = spectra(series)
        peak = abs(spectrum[0]).argmax()
        along = (fy if change == ALONG_Y else fx)[peak]
        expected = np.exp(-2j * np.pi * along * PERIOD * np.linspace(0, 1, FRAMES))
        turned = spectrum[:, peak] / spectrum[0, peak]
        assert abs(turned / abs(turned) - expected).max() < 0.25


def test_a_rotation_is_by_10_degrees() -> None:
    for series in windows_of(ROTATION):
        spectrum, fy, fx = spectra(series)
        first, last = (np.degrees(np.arctan2(fy[peak], fx[peak])) for peak in abs(spectrum[[0, -1]]).argmax(1))
        turned = (last - first + 45) % 90 - 45  # square lattices look alike after 90 degrees
        assert abs(turned) == pytest.approx(10, abs=1.5)


def test_an_edge_takes_the_lattice_away() -> None:
    for series in windows_of(EDGE):
        blocks = series.reshape(FRAMES, 8, 16, 8, 16)
        rough = blocks.std((2, 4)) > 0.5 * blocks[0].std((1, 3)).max()
        assert rough[0].sum() >= rough[-1].sum() + 8


def test_contrast_falls_and_focus_reverses() -> None:
    strength, _ = find_fringes(torch.from_numpy(windows_of(CONTRAST).reshape(-1, SIZE, SIZE)))
    assert (strength.view(COUNT, FRAMES)[:, -1] < strength.view(COUNT, FRAMES)[:, 0]).all()
    for series in windows_of(FOCUS):
        spectrum = spectra(series)[0]
        peak = abs(spectrum[0]).argmax()
        beam = spectrum[:, peak] / spectrum[0, peak]
        assert abs(beam[3]) < 0.3 * abs(beam[1])  # where chi is pi
        assert beam[4].real < -0.2


def test_groups_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_LATTICES", 3)
    model = random_model(TINY)
    for number, (change, group) in enumerate(zip(CHANGES, find_groups(model, 7.0), strict=True)):
        generator = torch.Generator().manual_seed(number)
        shares = []
        for series in changing_windows(change, 3, 12, TINY.window, (7.0, 7.0), generator):
            z = np.stack([model.encoder(window[None, None])[0][0].numpy() for window in series])
            variance = z.var(0)[list(model.latent_order)]
            shares.append(variance / variance.sum())
        assert group.change == change
        np.testing.assert_allclose(group.share, np.mean(shares, 0), rtol=1e-3)
        held = group.share[list(group.latents)]
        assert held[:-1].sum() <= 0.5 < held.sum()
        assert (np.diff(held) <= 0).all()
    assert Group("rotation", np.array([0.1, 0.5, 0.1, 0.3])).latents == (1, 3)


def test_a_model_with_groups_is_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(random_model(TINY), path, torch.float16)
    before, whole = load_model(path), path.read_bytes()
    assert before.groups == {}
    store_groups(path, {"rotation": (4,)})
    store_groups(path, GROUPS)
    after = load_model(path)
    assert after.groups == GROUPS
    assert after.sha256 == before.sha256
    with safe_open(path, "np") as file:
        assert file.get_tensor("encoder.mean.weight").dtype == np.float16
    save_model(after, tmp_path / "again.safetensors", torch.float16)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    save_model(replace(after, groups={}), path, torch.float16)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_know_their_groups(name: str) -> None:
    assert tuple(load_model(name).groups) == CHANGES


def test_a_result_has_maps_of_groups(tmp_path: Path) -> None:
    path = make_up_result(tmp_path / "maps.h5", model_groups=GROUPS)
    with open_result(path) as result:
        maps = np.stack([result.maps("time_correlated_variance", latent) for latent in range(LATENTS)])
        expected = np.sqrt(maps[2] + maps[0])
        np.testing.assert_allclose(result.group("rotation"), expected, rtol=1e-6)
        assert np.isnan(expected[-1, -1])
        titles = [picture.title for picture in map_pictures(result, range(LATENTS), 10**6)]
    assert titles[3:5] == ["rotation: √Σ(ρ · variance)² of a group", "focus: √Σ(ρ · variance)² of a group"]
    dataset = api.open_result(path)
    np.testing.assert_allclose(dataset.groups.sel(group="rotation"), expected, rtol=1e-6)
    assert dataset.group_latents.values.tolist() == [[True, False, True], [False, True, False]]
    with open_result(make_up_result(tmp_path / "older.h5")) as older:
        assert older.process.model_groups == {}
    assert "groups" not in api.open_result(tmp_path / "older.h5")

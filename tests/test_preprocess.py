"""Corrections of whole frames against the published steps in numpy."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.tiles import TileReader


def clipped(frame: np.ndarray) -> np.ndarray:
    mean, sigma = frame.mean(), frame.std()
    out: np.ndarray = frame.copy()
    out[(np.exp(-(((frame - mean) / sigma) ** 2) / 2) < 0.001) & (frame > mean)] = mean + 3.5 * sigma
    return out


def filtered(frame: np.ndarray) -> np.ndarray:
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n) for n in frame.shape), indexing="ij")
    gain = np.exp(-(fy**2 + fx**2) / (2 * 0.25**2))
    return np.fft.ifft2(np.fft.fft2(frame) * gain).real


@pytest.fixture
def frame() -> np.ndarray:
    random = np.random.default_rng(0)
    frame = random.normal(100, 10, (41, 60))
    frame[random.integers(0, 41, 5), random.integers(0, 60, 5)] = 900
    return frame


def test_clip_outliers(frame: np.ndarray) -> None:
    np.testing.assert_allclose(clip_outliers(torch.from_numpy(frame)), clipped(frame), rtol=1e-12)
    assert (clipped(frame) != frame).sum() == 5


def test_clip_leaves_what_is_not_finite(frame: np.ndarray) -> None:
    frame[3, 4], frame[5, 6] = np.nan, np.inf
    got = clip_outliers(torch.from_numpy(frame)).numpy()
    finite = np.isfinite(frame)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_allclose(got[finite], clipped(frame[finite]), rtol=1e-12)


def test_low_pass(frame: np.ndarray) -> None:
    np.testing.assert_allclose(low_pass(torch.from_numpy(frame)), filtered(frame), rtol=1e-10)


def test_low_pass_spreads_what_is_not_finite(frame: np.ndarray) -> None:
    frame[3, 4] = np.nan
    assert torch.isnan(low_pass(torch.from_numpy(frame))).all()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("frame_scaling", [False, True])
def test_tiles_are_cut_from_corrected_whole_frames(
    tmp_path: Path, frame: np.ndarray, clip: bool, smooth: bool, frame_scaling: bool
) -> None:
    pixels = np.stack([frame, frame[::-1] * 1.5]).astype(np.uint16)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    expected = pixels.astype(np.float32)
    if clip:
        expected = np.stack([clipped(f) for f in expected])
    if smooth:
        expected = np.stack([filtered(f) for f in expected])
    with Movie(tmp_path / "m.h5") as movie:
        reader = TileReader(movie, PreprocessSection(clip_outliers=clip, low_pass=smooth), frame_scaling)
        tile = reader.read(Area(slice(5, 30), slice(10, 50)), False)
    np.testing.assert_allclose(tile.pixels, expected[:, 5:30, 10:50], rtol=1e-5)
    if frame_scaling:
        assert tile.frame_range is not None
        limits = np.stack([expected.min((1, 2)), expected.max((1, 2))], 1)
        np.testing.assert_allclose(tile.frame_range, limits, rtol=1e-5)
    else:
        assert tile.frame_range is None

"""Statistics over time against numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import PLAIN, plain_statistics
from scipy import stats

from hrtemvae_hpc.statistics import over_time, significance
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.over_time import ALL_MAPS, MAPS, SeriesStatistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.statistics.sort import sort_series


def series_statistics(z: torch.Tensor, valid: torch.Tensor, comparison: Comparison | None = None) -> SeriesStatistics:
    comparison = comparison or Comparison.with_time(len(z))
    return over_time.series_statistics(z, valid, PermutationTest(comparison, z.device))


def on_device(z: np.ndarray, valid: np.ndarray, comparison: Comparison | None = None) -> SeriesStatistics:
    """As a GPU computes it, by tensors' operations alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(over_time, "_values_on_cpu", over_time._values_on_device)
        patch.setattr(significance, "_count_on_cpu", significance._count_on_device)
        return series_statistics(torch.from_numpy(z), torch.from_numpy(valid), comparison)


def assert_agrees(z: np.ndarray, valid: np.ndarray) -> None:
    got = series_statistics(torch.from_numpy(z), torch.from_numpy(valid))
    device = on_device(z, valid)
    expected = plain_statistics(z, valid)
    for name in (*MAPS, *PLAIN):
        for way in (got, device):
            np.testing.assert_allclose(getattr(way, name), expected[name], rtol=2e-6, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(got.valid_frames, valid.sum(0))
    for name in ("autocorrelation", "chance", "largest_rho"):
        np.testing.assert_allclose(getattr(device, name), getattr(got, name), atol=2e-6, err_msg=name)


@settings(deadline=None)
@given(
    frames=st.integers(1, 40),
    windows=st.integers(1, 4),
    latents=st.integers(1, 5),
    levels=st.sampled_from([1, 2, 3, 10, 0]),
    valid_share=st.sampled_from([1.0, 0.9, 0.3, 0.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_numpy_and_scipy(
    frames: int, windows: int, latents: int, levels: int, valid_share: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    z = random.standard_normal((frames, windows, latents)).astype(np.float32)
    if levels:  # few levels: many ties; one: a constant series
        z = np.floor(z * levels / 3).astype(np.float32) if levels > 1 else np.ones_like(z)
    assert_agrees(z, random.random((frames, windows)) < valid_share)


def test_constant_series_has_no_rho_and_no_variance() -> None:
    got = series_statistics(torch.full((10, 2, 3), 0.1), torch.ones(10, 2, dtype=torch.bool))
    assert torch.isnan(got.spearman).all()
    assert torch.isnan(got.time_correlated_variance).all()
    assert (got.variance == 0).all()


@pytest.mark.parametrize("valid_frames", [0, 1, 2])
def test_fewer_than_three_frames_give_no_map(valid_frames: int) -> None:
    valid = torch.zeros(8, 1, dtype=torch.bool)
    valid[:valid_frames] = True
    got = series_statistics(torch.randn(8, 1, 4), valid)
    for name in ALL_MAPS:
        assert torch.isnan(getattr(got, name)).all()
    assert not got.largest_rho.any()
    assert got.valid_frames.tolist() == [valid_frames]


def test_steady_drift_has_rho_one_and_its_reverse_minus_one() -> None:
    z = torch.stack([torch.arange(9.0), -torch.arange(9.0)], 1)[:, None]
    got = series_statistics(z, torch.ones(9, 1, dtype=torch.bool))
    np.testing.assert_allclose(got.spearman[0], [1, -1], atol=1e-7)


def test_signed_zeros_tie() -> None:
    z = np.array([0.0, -0.0, 0.0, 1.0, -1.0], np.float32).reshape(5, 1, 1)
    assert_agrees(z, np.ones((5, 1), bool))


@settings(deadline=None)
@given(
    length=st.integers(250, 700),
    least=st.sampled_from([-(2**31), -300, -1, 0]),
    most=st.sampled_from([0, 1, 70_000, 2**31 - 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_series_of_keys_are_sorted(length: int, least: int, most: int, seed: int) -> None:
    upper = np.random.default_rng(seed).integers(least, most, (3, length), endpoint=True)
    keys = (upper << 32) | np.arange(length)
    expected = np.sort(keys, axis=1)
    sort_series(keys)
    np.testing.assert_array_equal(keys, expected)


@pytest.mark.parametrize("levels", [3, 1000])
def test_long_series_with_ties_and_gaps(levels: int) -> None:
    random = np.random.default_rng(levels)
    z = np.floor(random.standard_normal((700, 3, 5)) * levels / 3).astype(np.float32)
    assert_agrees(z, random.random((700, 3)) < 0.8)


def test_many_series_in_several_parts() -> None:
    random = np.random.default_rng(1)
    z = random.standard_normal((300, 33, 500)).astype(np.float32)  # more than is computed at once
    valid = np.ones((300, 33), bool)
    got = series_statistics(torch.from_numpy(z), torch.from_numpy(valid))
    ranks = stats.rankdata(z, axis=0) - 150.5
    time = np.arange(300) - 149.5
    rho = np.einsum("t,twk->wk", time, ranks) / np.sqrt((time**2).sum() * (ranks**2).sum(0))
    np.testing.assert_allclose(got.spearman, rho, atol=1e-6)
    np.testing.assert_allclose(got.variance, z.astype(float).var(0), rtol=1e-6)

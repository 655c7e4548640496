"""How certain rho is: permutations of blocks against plain loops, scipy and pymannkendall."""

import numpy as np
import pymannkendall
import pytest
import torch
from plain import plain_rho
from scipy import signal, stats

from hrtemvae_hpc.statistics.chance import few_frames_warning, largest_by_chance
from hrtemvae_hpc.statistics.comparison import PERMUTATIONS, Comparison, centred_ranks
from hrtemvae_hpc.statistics.over_time import SeriesStatistics, series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest, correct, family_wise

CPU = torch.device("cpu")


def analysed(z: np.ndarray, valid: np.ndarray | None = None, comparison: Comparison | None = None) -> SeriesStatistics:
    """Of ``z`` [frames, windows, latents], all of whose frames are valid if nothing else is said."""
    valid = np.ones(z.shape[:2], bool) if valid is None else valid
    test = PermutationTest(comparison or Comparison.with_time(len(z)), CPU)
    return series_statistics(torch.from_numpy(z.astype(np.float32)), torch.from_numpy(valid), test)


def autoregressive(coefficient: float, frames: int, series: int, seed: int = 0) -> np.ndarray:
    """Series [frames, 1, series] without a trend, whose neighbouring values correlate by ``coefficient``."""
    noise = np.random.default_rng(seed).standard_normal((frames + 200, 1, series))
    return np.asarray(signal.lfilter([1], [1, -coefficient], noise, axis=0)[200:])


def significant(got: SeriesStatistics, frames: int) -> np.ndarray:
    """Which windows and latents are at the level of 5% for all of them, as a result's groups are computed."""
    test = PermutationTest(Comparison.with_time(frames), CPU)
    own = got.autocorrelation.numpy()
    typical = np.median(np.median(own, axis=0))
    corrected = correct(got.spearman.numpy(), np.maximum(own, typical), test.ratios)
    return np.asarray(family_wise(corrected, got.largest_rho.numpy()) <= 0.05)


def naive_chance(z: np.ndarray) -> np.ndarray:
    """scipy's p of each series of ``z`` [frames, 1, series], which takes its values for independent."""
    return np.array([stats.spearmanr(series, np.arange(len(z))).pvalue for series in z[:, 0].T])


def some_comparison(frames: int, given: int, seed: int = 0) -> Comparison:
    """With values that tie, given others that are correlated with them and with time; one frame is not used."""
    random = np.random.default_rng(seed)
    values = np.floor(4 * random.standard_normal(frames) + 0.3 * np.arange(frames))
    others = random.standard_normal((given, frames)) + 0.3 * values + 0.1 * np.arange(frames)
    used = np.ones(frames, bool)
    used[frames // 3] = False
    return Comparison(values, others, used)


@pytest.mark.parametrize("coefficient", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("frames", [30, 62, 200])
def test_one_series_in_twenty_is_significant_without_a_trend(frames: int, coefficient: float) -> None:
    z = autoregressive(coefficient, frames, 3000)
    share = float((analysed(z).chance <= 0.05).float().mean())
    naive = (naive_chance(z[..., :300]) <= 0.05).mean()
    assert share <= 0.07
    if coefficient == 0:
        assert share >= 0.03
    if coefficient == 0.8:
        assert naive > 0.35, "what permutations of blocks prevent"


def test_chance_is_that_of_scipy_for_white_noise() -> None:
    z = np.random.default_rng(1).standard_normal((300, 1, 200))
    got, expected = analysed(z).chance[0].numpy(), naive_chance(z)
    assert np.corrcoef(got, expected)[0, 1] > 0.95
    assert abs(np.mean(got - expected)) < 0.02


def test_as_few_false_trends_as_the_corrected_test_of_mann_and_kendall_and_as_many_true_ones() -> None:
    frames = 62
    z = autoregressive(0.6, frames, 150, seed=2)
    rising = z + np.linspace(0, 6, frames)[:, None, None]

    def corrected(series: np.ndarray) -> np.ndarray:
        return np.array([pymannkendall.hamed_rao_modification_test(s).p <= 0.05 for s in series[:, 0].T])

    ours, theirs = ((analysed(each).chance[0].numpy() <= 0.05, corrected(each)) for each in (z, rising))
    assert ours[0].mean() <= ours[1].mean() + 0.03
    assert theirs[0].mean() >= theirs[1].mean() - 0.05
    assert theirs[0].mean() > 0.9


@pytest.mark.parametrize("coefficient", [0.0, 0.8])
def test_movies_without_a_trend_have_no_significant_window_in_nineteen_of_twenty(coefficient: float) -> None:
    found = 0
    for seed in range(100):
        z = autoregressive(coefficient, 40, 20 * 16, seed).reshape(40, 20, 16)
        found += bool(significant(analysed(z), 40).any())
    assert found <= stats.binom.ppf(0.99, 100, 0.05)


def test_a_few_windows_with_a_trend_are_found_among_many_without() -> None:
    z = np.random.default_rng(0).standard_normal((62, 50, 16))
    z[:, :3, 5] += np.linspace(0, 8, 62)[:, None]
    got = analysed(z)
    found = significant(got, 62)
    assert found[:3, 5].all()
    found[:3, 5] = False
    assert not found.any()


def test_jump_and_return_is_found_by_its_excess_variance_and_by_its_change() -> None:
    z = np.random.default_rng(3).standard_normal((60, 1, 2))
    z[20:40, 0, 0] += 8
    got = analysed(z)
    assert abs(got.spearman[0, 0]) < 0.15
    excess = (got.variance - got.noise)[0]
    assert excess[0] > 10
    assert abs(excess[1]) < 0.5
    assert got.change[0, 0] in (20, 40)
    assert abs(got.score[0, 0]) > 0.4


def test_a_step_is_placed_where_it_is() -> None:
    z = np.random.default_rng(4).standard_normal((50, 1, 40))
    z[35:] -= 10
    got = analysed(z)
    assert got.change.median() == 35
    assert ((got.change - 35).abs() <= 5).all()
    np.testing.assert_allclose(got.score, -4 * 0.7 * 0.3, atol=0.08)


@pytest.mark.parametrize("given", [0, 1, 3])
def test_rho_with_a_log_given_others_is_the_partial_correlation_of_ranks(given: int) -> None:
    frames = 40
    comparison = some_comparison(frames, given)
    random = np.random.default_rng(5)
    z = (random.standard_normal((frames, 6, 4)) + 0.2 * comparison.values[:, None, None]).round(1)
    valid = (random.random((frames, 6)) < 0.8) & comparison.used[:, None]
    got = analysed(z, valid, comparison)
    even = np.arange(frames) % 2 == 0
    for w in range(6):
        for k in range(4):
            for mask, value in (
                (valid[:, w], got.spearman),
                (valid[:, w] & even, got.even),
                (valid[:, w] & ~even, got.odd),
            ):
                ranks = [stats.rankdata(s[mask]) for s in (z[:, w, k], comparison.values, *comparison.given)]
                others = np.stack([np.ones(mask.sum()), *ranks[2:]], 1)
                one, other = (r - others @ np.linalg.lstsq(others, r)[0] for r in ranks[:2])
                expected = np.corrcoef(one, other)[0, 1] * (1 if value is got.spearman else z[mask, w, k].var())
                assert value[w, k] == pytest.approx(expected, abs=2e-6)


def test_rho_is_undefined_where_what_is_given_explains_time() -> None:
    frames = 20
    time = np.arange(frames, dtype=np.float64)
    comparison = Comparison(time, np.exp(-time)[None], np.ones(frames, bool))
    got = analysed(np.random.default_rng(0).standard_normal((frames, 2, 3)), comparison=comparison)
    assert torch.isnan(got.spearman).all()
    assert torch.isnan(got.chance).all()


def test_whole_blocks_are_permuted() -> None:
    comparison = Comparison.with_time(62)
    assert comparison.blocks == 8
    assert len(comparison.orders) == PERMUTATIONS
    starts = {int(block[0]): block for block in np.array_split(np.arange(62), 8)}
    for order in comparison.orders[:50]:
        rest = list(order)
        while rest:
            block = starts[rest[0]]
            assert rest[: len(block)] == block.tolist()
            del rest[: len(block)]
    few = Comparison.with_time(20)
    assert len(few.orders) == 119, "all orders of five blocks but the true one"
    assert len({tuple(order) for order in few.orders}) == 119


@pytest.mark.parametrize("given", [0, 2])
def test_permutations_of_windows_with_gaps_are_those_of_a_plain_loop(given: int) -> None:
    frames = 30
    comparison = some_comparison(frames, given, seed=1)
    random = np.random.default_rng(6)
    z = random.standard_normal((frames, 3, 2))
    valid = (random.random((frames, 3)) < 0.8) & comparison.used[:, None]
    got = analysed(z, valid, comparison)
    test = PermutationTest(comparison, CPU)
    largest = np.zeros(len(comparison.orders))
    for w in range(3):
        mask = valid[:, w]
        rest = centred_ranks(comparison.values[mask])
        others = np.stack([centred_ranks(q[mask]) for q in comparison.given], 1) if given else np.zeros((mask.sum(), 1))

        def less_others(r: np.ndarray, others: np.ndarray = others) -> np.ndarray:
            return np.asarray(r - others @ np.linalg.lstsq(others, r)[0])

        rest = less_others(rest)
        for k in range(2):
            series = less_others(centred_ranks(z[mask, w, k]))
            reached = 1
            limit = correct(got.spearman[w, k].numpy(), got.autocorrelation[w, k].numpy(), test.ratios)
            for p, order in enumerate(comparison.orders):
                permuted = np.zeros(frames)
                permuted[[t for t in order if mask[t]]] = rest
                rho = abs(np.corrcoef(series, less_others(permuted[mask]))[0, 1])
                largest[p] = max(largest[p], rho)
                reached += rho >= limit - 1e-5
            assert float(got.chance[w, k]) == pytest.approx(reached / (1 + len(comparison.orders)), abs=1e-6)
    np.testing.assert_allclose(got.largest_rho, largest, atol=2e-6)


def test_windows_with_fewer_than_half_of_the_frames_are_not_tested() -> None:
    z = np.random.default_rng(7).standard_normal((40, 3, 4))
    valid = np.ones((40, 3), bool)
    valid[:21, 1] = False
    valid[:20, 2] = False
    got = analysed(z, valid)
    assert got.chance.isnan().all(1).tolist() == [False, True, False]
    assert got.autocorrelation.isnan().all(1).tolist() == [False, True, False]
    np.testing.assert_array_equal(got.largest_rho, analysed(z[:, [0, 2]], valid[:, [0, 2]]).largest_rho)


def test_constant_series_are_not_tested() -> None:
    z = np.random.default_rng(8).standard_normal((30, 1, 2))
    z[..., 0] = 0.1
    got = analysed(z)
    assert got.chance.isnan().tolist() == [[True, False]]
    assert torch.isfinite(got.largest_rho).all()


def test_family_wise_chance_is_the_share_of_larger_maxima() -> None:
    random = np.random.default_rng(9)
    corrected, largest = random.random((4, 5)).astype(np.float32), random.random(99).astype(np.float32)
    corrected[0, 0] = np.nan
    got = family_wise(corrected, largest)
    assert np.isnan(got[0, 0])
    for value, chance in zip(corrected.ravel()[1:], got.ravel()[1:], strict=True):
        assert chance == pytest.approx((1 + (largest >= value).sum()) / 100)


@pytest.mark.parametrize(("frames", "latents"), [(10, 64), (15, 5)])
def test_the_largest_rho_by_chance_is_that_of_simulated_ranks(frames: int, latents: int) -> None:
    random = np.random.default_rng(10)
    ranks = stats.rankdata(random.random((12800 // latents, latents, frames)), axis=-1)
    differences = ranks - np.arange(1, frames + 1)
    rho = 1 - 6 * (differences**2).sum(-1) / (frames * (frames**2 - 1))  # Spearman's, without ties
    largest = abs(rho).max(1)
    assert largest_by_chance(frames, latents) == pytest.approx(np.quantile(largest, 0.95), abs=0.03)
    assert f"{largest_by_chance(frames, latents):.2f}" in few_frames_warning(frames, latents)


def test_twenty_frames_are_enough() -> None:
    assert few_frames_warning(20, 64) == ""


def test_ranks_are_those_of_scipy() -> None:
    values = np.random.default_rng(11).integers(0, 9, 40)
    assert plain_rho(values, np.arange(40)) == pytest.approx(np.corrcoef(centred_ranks(values), np.arange(40))[0, 1])
    np.testing.assert_array_equal(centred_ranks(values), 2 * stats.rankdata(values) - 41)

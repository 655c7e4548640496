"""Processes are found where they were planted, as many as there are, and none in noise."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused
from hypothesis import strategies
from scipy.stats import spearmanr

from hrtemvae_hpc.maps.digest import seal
from hrtemvae_hpc.maps.process_lattice import GROWTH, LOSS, ROTATION, SHIFT, UNKNOWN, lattice_change
from hrtemvae_hpc.maps.process_merging import merge_alike
from hrtemvae_hpc.maps.processes import (
    MOST,
    Processes,
    SignedMaps,
    find_processes,
    leading_latents,
    place_of,
    processes_of,
)
from hrtemvae_hpc.maps.report import write_result_page
from hrtemvae_hpc.maps.result import open_result

LATENTS, SHAPE, WIDE = 24, (40, 60), 8
PLACES = {"turning": np.s_[8:32, 24:40], "growing": np.s_[8:32, 2:12], "shrinking": np.s_[8:32, 48:58]}


def planted(names: list[str], noise: float = 0.05, seed: int = 0) -> Callable[[str, int], np.ndarray]:
    """Signed maps in which latents alternate from window to window in one place, and agree in the others.

    Two latents of three take part in each, by shares of their own.
    """
    random = np.random.default_rng(seed)
    signal = np.zeros((LATENTS, *SHAPE))
    for name in names:
        share = random.uniform(0.3, 1, LATENTS) * (random.uniform(size=LATENTS) < 2 / 3)
        sign = random.choice([-1, 1], (LATENTS, 1, 1))
        if name == "turning":
            sign = random.choice([-1, 1], (LATENTS, *SHAPE))
        signal += np.where(mask(name), sign * share[:, None, None], 0)
    maps = {frames: signal + random.normal(0, noise, signal.shape) for frames in ("all", "even", "odd")}
    return lambda frames, latent: maps[frames][latent]


def mask(name: str) -> np.ndarray:
    place = np.zeros(SHAPE, bool)
    place[PLACES[name]] = True
    return place


def find(signed: Callable[[str, int], np.ndarray]) -> Processes:
    return find_processes(SignedMaps(signed, np.full(LATENTS, 0.05), np.ones(SHAPE, bool)), WIDE)


@pytest.mark.parametrize("names", [["turning"], ["growing", "shrinking"], ["turning", "growing", "shrinking"]])
def test_each_planted_process_is_one(names: list[str]) -> None:
    found = find(planted(names))
    assert len(found) == len(names)
    for name in names:
        overlaps = [(place_of(p) & mask(name)).sum() / (place_of(p) | mask(name)).sum() for p in found.maps]
        assert max(overlaps) > 0.5
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)
    assert (found.reproducibility > 0.8).all()


def test_latents_that_agree_rise_or_fall_and_those_that_alternate_do_neither() -> None:
    for name, expected in (("growing", 1.0), ("turning", 0.0)):
        signed = planted([name])
        found = find(signed)
        for latent in leading_latents(found.weights[0]):
            inside = signed("all", latent)[mask(name)]
            assert found.direction[0, latent] == pytest.approx(expected * np.sign(inside.mean()), abs=0.45)


def test_noise_is_no_process() -> None:
    assert [len(find(planted([], seed=seed))) for seed in range(2)] == [0] * 2


@hypothesis.given(
    rows=strategies.integers(1, 12),
    columns=strategies.integers(1, 12),
    latents=strategies.integers(1, 4),
    wide=strategies.floats(0.2, 9),
    seed=strategies.integers(0, 9),
)
@hypothesis.settings(max_examples=25)
def test_maps_of_any_shape(rows: int, columns: int, latents: int, wide: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    maps = random.normal(size=(3, latents, rows, columns))
    maps[random.uniform(size=maps.shape) < 0.1] = np.nan
    known = random.uniform(size=(rows, columns)) < 0.8
    which = {"all": 0, "even": 1, "odd": 2}
    signed = SignedMaps(lambda frames, i: maps[which[frames], i], random.uniform(0, 1, latents), known)
    found = find_processes(signed, wide)
    assert len(found) <= MOST
    assert found.maps.shape[1:] == (rows, columns)
    assert found.weights.shape == (len(found), latents)
    for part in found.maps:
        np.testing.assert_array_equal(np.isnan(part), ~known)
        assert np.nanmax(part) <= 1


@pytest.fixture(scope="module")
def demo(run_in: Callable[[Path], Program], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's crystals in a smaller movie, analysed by the bundled model."""
    folder = tmp_path_factory.mktemp("demo")
    run = run_in(folder)
    assert run("simulate", "-o", "m.h5", "--frames", 12, "--size", 192, 224).code == 0
    outcome = run("analyze", "m.h5", "--step", 16, "--clip-outliers", "--drift", "none", "--precision", "bf16")
    assert outcome.code == 0, outcome.text
    return folder / "m.maps.h5"


def test_the_page_begins_with_them(demo: Path) -> None:
    page = demo.with_suffix(".html").read_text()
    with open_result(demo) as result:
        assert result.processes is not None
        count = len(result.processes.found)
        span, series = result.processes.span, result.processes.series
    assert count > 0
    assert page.index("What happens") < page.index('id="viewer"')
    assert page.count('alt="Process ') == count
    assert page.count('class="course"') == count
    assert ((span >= 0) & (span < 12)).all()
    assert (np.diff(span) >= 0).all()
    assert series.shape == (count, 12)
    assert all(spearmanr(each, np.arange(12)).statistic > 0.8 for each in series)


def test_results_without_them_are_read(demo: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.h5"
    shutil.copy(demo, older)
    with h5py.File(older, "r+") as file:
        del file["entry/processes"]
        del file["entry/process/digests"], file["entry/process/file_digest"]
    seal(older)
    assert "What happens" not in write_result_page(older, tmp_path / "older.html").read_text()


def test_processes_that_do_not_fit_the_maps_are_refused(demo: Path, hrtemvae: Program, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(demo, other)
    with h5py.File(other, "r+") as file:
        weights = file["entry/processes/weights"][...]
        del file["entry/processes/weights"], file["entry/process/digests"], file["entry/process/file_digest"]
        file["entry/processes/weights"] = weights[:, :-1]
    seal(other)
    assert_refused(hrtemvae("report", "other.h5"), "other.h5", "processes does not match")


def lattice_windows(change: str, contrast: float = 1.0, seed: int = 0) -> np.ndarray:
    """Windows [20, 3, 64, 64] at three times of a square lattice with noise, each at a place of its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    windows = np.empty((20, 3, 64, 64))
    for window, offset in zip(windows, random.uniform(0, 20, (20, 2)), strict=True):
        for time, progress in enumerate((0.0, 0.5, 1.0)):
            angle = np.radians(10 + (7 * progress if change == ROTATION else 0))
            shift = 9 * progress if change == SHIFT else 0
            along = (x + offset[0] + shift) * np.cos(angle) + (y + offset[1]) * np.sin(angle)
            across = (y + offset[1]) * np.cos(angle) - (x + offset[0] + shift) * np.sin(angle)
            strength = {GROWTH: 0.2 + 0.8 * progress, LOSS: 1 - 0.8 * progress}.get(change, 1.0)
            fringes = np.cos(2 * np.pi * along / 18) + np.cos(2 * np.pi * across / 18)
            window[time] = contrast * strength * fringes + random.normal(0, 1, (64, 64))
    low, high = windows.min((2, 3), keepdims=True), windows.max((2, 3), keepdims=True)
    return np.asarray(255 * (windows - low) / (high - low)).astype(np.uint8)


@pytest.mark.parametrize("change", [GROWTH, LOSS, ROTATION, SHIFT, UNKNOWN])
def test_what_a_lattice_does_is_named(change: str) -> None:
    found = lattice_change(lattice_windows(change))
    assert found.name == change
    if change in (ROTATION, SHIFT, UNKNOWN):
        assert found.turned == pytest.approx(7 if change == ROTATION else 0, abs=0.5)
        assert found.strength == pytest.approx(1, abs=0.2)
    if change in (SHIFT, UNKNOWN):
        # 9 pixels along x in all, of fringes with a period of 18 that lie at 10 degrees
        assert found.shifted == pytest.approx(0.5 * np.cos(np.radians(10)) if change == SHIFT else 0, abs=0.03)
    back = lattice_change(lattice_windows(change)[:, ::-1])
    assert back.name == {GROWTH: LOSS, LOSS: GROWTH}.get(change, change)


def test_without_a_lattice_nothing_is_named() -> None:
    for windows in (lattice_windows(ROTATION, contrast=0), lattice_windows(ROTATION)[:2], np.zeros((9, 3, 16, 16))):
        assert np.isnan(lattice_change(windows).turned)
        assert lattice_change(windows).name == UNKNOWN


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((ROTATION, ROTATION, ROTATION), [(0, 1), (2,)]),
        ((ROTATION, GROWTH, ROTATION), [(0,), (1,), (2,)]),
        ((GROWTH, GROWTH, LOSS), [(0, 1), (2,)]),
        ((SHIFT, SHIFT, SHIFT), [(0,), (1,), (2,)]),
        ((UNKNOWN, UNKNOWN, UNKNOWN), [(0,), (1,), (2,)]),
    ],
)
def test_neighbours_that_do_the_same_are_one(changes: tuple[str, ...], expected: list[tuple[int, ...]]) -> None:
    # Two side by side, the third far from both, and a latent for each.
    parts = np.zeros((3, *SHAPE), np.float32)
    for part, columns in zip(parts, (slice(2, 12), slice(14, 24), slice(44, 54)), strict=True):
        part[10:30, columns] = 1
    weights = np.zeros((3, LATENTS), np.float32)
    weights[[0, 1, 2], [0, 1, 2]] = 1
    found = processes_of(parts, weights, weights, [0.9, 0.8, 0.7], [1, 3, 5])
    named = {change: lattice_change(lattice_windows(change)) for change in changes}
    merged, what = merge_alike(found, [named[change] for change in changes], WIDE)
    # What changes most comes first: the third alone changes more than the two others together.
    expected = sorted(expected, key=lambda group: -sum((1, 3, 5)[i] for i in group))
    assert [change.name for change in what] == [changes[group[0]] for group in expected]
    for i, group in enumerate(map(list, expected)):
        np.testing.assert_array_equal(merged.maps[i], parts[group].max(0))
        share = np.array([1, 3, 5])[group] / merged.change[i]
        np.testing.assert_allclose(merged.weights[i], share @ weights[group], rtol=1e-6)
        np.testing.assert_allclose(merged.direction[i], weights[group].max(0) > 0)
        assert merged.reproducibility[i] == found.reproducibility[group].min()

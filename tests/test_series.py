"""Series that a result keeps: those of the windows that follow time most, as a trace encodes them."""

from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
import torch
from commands import Program
from hypothesis import strategies

from hrtemvae_hpc import api
from hrtemvae_hpc.maps.process_series import course_of
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.maps.windows_group import KeptWindows
from hrtemvae_hpc.windows.cells import Cells, binned_series, cells_for, strongest_windows
from hrtemvae_hpc.windows.grid import WindowGrid


@hypothesis.given(
    strategies.integers(1, 13), strategies.integers(1, 13), strategies.integers(1, 5), strategies.integers(0, 99)
)
@hypothesis.settings(max_examples=50)
def test_the_strongest_windows_are_those_of_a_plain_search(rows: int, columns: int, side: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    strength = random.integers(0, 4, (rows, columns)).astype(float)
    strength[random.uniform(size=strength.shape) < 0.3] = np.nan
    found = strongest_windows(strength, side)
    for i, top in enumerate(range(0, rows, side)):
        for j, left in enumerate(range(0, columns, side)):
            inside = [
                (-1.0 if np.isnan(strength[y, x]) else strength[y, x], -y, -x)
                for y in range(top, min(top + side, rows))
                for x in range(left, min(left + side, columns))
            ]
            _, y, x = max(inside)
            assert (found[0][i, j], found[1][i, j]) == (-y, -x)


@pytest.mark.parametrize("frames", [3, 128, 129, 300])
def test_bins_are_means_of_what_is_valid(frames: int) -> None:
    random = np.random.default_rng(frames)
    z = random.normal(size=(frames, 4, 2)).astype(np.float32)
    valid = random.uniform(size=(frames, 4)) < 0.7
    valid[:, 3] = False
    cells = Cells(1, frames)
    found = binned_series(torch.from_numpy(z), torch.from_numpy(valid), cells.frames_per_bin)
    assert found.shape == (4, 2, cells.bins)
    assert cells.bins <= 128
    for b in range(cells.bins):
        part = slice(b * cells.frames_per_bin, (b + 1) * cells.frames_per_bin)
        for window in range(4):
            here = z[part, window][valid[part, window]]
            expected = here.mean(0, dtype=np.float64) if len(here) else np.full(2, np.nan)
            np.testing.assert_allclose(found[window, :, b], expected, atol=2e-3)


@hypothesis.given(
    strategies.integers(64, 3000), strategies.integers(1, 70), strategies.sampled_from([4, 8, 16]),
    strategies.integers(3, 5000),
)  # fmt: skip
def test_cells_lie_within_blocks(size: int, step: int, block: int, frames: int) -> None:
    grid = WindowGrid(size, size, 64, step)
    cells = cells_for(grid, block, frames, 64)
    assert block % cells.side == 0
    small = cells.bytes((grid.rows, grid.columns), 64) <= 2**23
    assert cells.side == block or (small and cells.side * step >= 16)


def test_series_are_those_of_a_trace(hrtemvae: Program, tmp_path: Path) -> None:
    assert hrtemvae("simulate", "-o", "m.h5", "--frames", 5, "--size", 192, 200).code == 0
    outcome = hrtemvae("analyze", "m.h5", "--step", 4, "--roi", "100:180,8:96")
    assert outcome.code == 0, outcome.text
    path = tmp_path / "m.maps.h5"
    with open_result(path) as result:
        series, together, window = result.series, result.together, result.process.window
        assert series is not None
        assert result.windows is not None
        assert_windows_are_those_of_the_movie(result.windows, tmp_path / "m.h5", window)
        rows, columns = series.windows
        kept = series.of(np.ones(rows.shape, bool))
    side = series.cells.side
    assert side > 1
    for (i, j), row in np.ndenumerate(rows):
        cell = together[i * side : (i + 1) * side, j * side : (j + 1) * side]
        assert together[row, columns[i, j]] == pytest.approx(np.nanmax(cell), rel=1e-6)
    half = (window - 1) / 2
    chosen = [0, len(kept) // 2, len(kept) - 1]
    at = [(100 + 4 * rows.ravel()[i] + half, 8 + 4 * columns.ravel()[i] + half) for i in chosen]
    traced = api.trace(path, at)
    np.testing.assert_allclose(kept[chosen].transpose(2, 0, 1), traced["z"], rtol=2e-3, atol=2e-3)


def assert_windows_are_those_of_the_movie(shown: KeptWindows, movie: Path, size: int) -> None:
    """In its own units, from black to white; where a reconstruction isn't flat its correlation is that of numpy."""
    with h5py.File(movie) as file:
        pixels = file["entry/data/data"][...].astype(float)
    assert shown.frames.tolist() == [0, 2, 4]
    for number, (row, column) in enumerate(shown.places.T):
        for time, frame in enumerate(shown.frames):
            image, again = shown.images[number, time].astype(float)
            y, x = 100 + 4 * row, 8 + 4 * column
            expected = pixels[frame, y : y + size, x : x + size]
            expected = 255 * (expected - expected.min()) / np.ptp(expected)
            np.testing.assert_allclose(image, expected, atol=0.51)
            if again.std() > 20:
                alike = np.corrcoef(image.ravel(), again.ravel())[0, 1]
                assert shown.correlation[number, time] == pytest.approx(alike, abs=0.02)


@pytest.mark.parametrize(("first", "last"), [(0, 79), (20, 50), (45, 79)])
@pytest.mark.parametrize("cycles", [0.5, 3.0])
def test_a_process_lasts_as_long_as_its_latents_move(first: int, last: int, cycles: float) -> None:
    random = np.random.default_rng(first)
    progress = np.clip((np.arange(80) - first) / (last - first), 0, 1)
    phase = random.uniform(0, 2 * np.pi, (300, 1))
    series = 4 * np.sin(phase + 2 * np.pi * cycles * progress) + random.normal(size=(300, 80))
    course = course_of(series, random.uniform(-1, 1, 300), np.ones(300), 1)
    assert course.start == pytest.approx(first, abs=5)
    assert course.end == pytest.approx(last, abs=5)


def test_a_course_adds_up_what_rises_and_what_falls() -> None:
    random = np.random.default_rng(0)
    sign = random.choice([-1.0, 1.0], 200)
    rises = np.linspace(-2, 2, 40)
    series = sign[:, None] * rises * 3 + random.normal(size=(200, 40)) * 3
    series[random.uniform(size=series.shape) < 0.1] = np.nan
    course = course_of(series, sign, np.full(200, 9.0), 1)
    np.testing.assert_allclose(course.series, rises, atol=0.4)


def test_a_course_of_nothing_is_unknown() -> None:
    for series in (np.zeros((0, 30)), np.full((3, 30), np.nan), np.zeros((2, 2))):
        course = course_of(series, np.ones(len(series)), np.ones(len(series)), 1)
        assert course.start == course.end == -1

"""Drift: shifts against scipy and pystackreg, drift against the truth of simulated movies, and its table."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hrtemvae_hpc.drift.drift import Drift, DriftEstimate
from hrtemvae_hpc.drift.measure import Prepared, binned, blocks, measure_block, measure_shift
from hrtemvae_hpc.drift.solve import solve_drift
from hrtemvae_hpc.drift.table import read_drift, write_drift
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.fourier.shift import band_pass, find_shift, shifted, spectrum_of
from hrtemvae_hpc.simulation import movies
from hrtemvae_hpc.simulation.movies import simulate_movie

FRAMES = 24
RANDOM_SPECKLE = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((160, 192)), 2.5, mode="wrap")


def estimate(pixels: np.ndarray) -> DriftEstimate:
    return solve_drift([measure_block(block, lambda t: pixels[t]) for block in blocks(len(pixels))])


def path(found: DriftEstimate) -> np.ndarray:
    return np.stack([found.drift.dy, found.drift.dx], 1)


def rmse(found: DriftEstimate, truth: np.ndarray) -> float:
    return float(np.sqrt(np.square(path(found) - truth).mean()))


def simulated(folder: Path, drift: float, seed: int, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a movie and its true drift."""
    with h5py.File(simulate_movie(folder / "m.h5", frames, 320, 448, 60.0, seed, drift)) as file:
        truth = file["entry/truth/drift_px"][...] if drift else np.zeros((frames, 2))
        return file["entry/data/data"][...], truth


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """A crystal that turns, two edges that move, and a drift of 10 pixels."""
    return simulated(tmp_path_factory.mktemp("drift"), 10.0, 0)


@settings(max_examples=20)
@given(dy=st.floats(-9, 9), dx=st.floats(-9, 9))
def test_patches_find_the_shift_that_scipy_made(dy: float, dx: float) -> None:
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(RANDOM_SPECKLE), (dy, dx))).real
    one, other = (Prepared.of(band_pass(image.astype(np.float32))[0]) for image in (RANDOM_SPECKLE, moved))
    whole = find_shift(one.spectrum, other.spectrum, one.image.shape, (0.0, 0.0))
    assert abs(whole.dy - dy / 2) <= 1  # in pixels of band-passed images, which are twice as large
    assert abs(whole.dx - dx / 2) <= 1
    found, _ = measure_shift(one, other, (0.0, 0.0))
    found = found[found[:, 2] > 0]
    assert len(found) >= 2
    assert np.median(abs(found[:, :2] - (dy, dx)), 0).max() < 0.05


@pytest.mark.parametrize("rows", [16, 18, 24])
def test_a_narrow_strip_is_enough(rows: int) -> None:
    speckle = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((rows, 1024)), 2.5, mode="wrap")
    for dx in (0, 2, 5):
        one, other = (
            Prepared.of(band_pass(image.astype(np.float32))[0]) for image in (speckle, np.roll(speckle, dx, 1))
        )
        found, _ = measure_shift(one, other, (0.0, 0.0))
        known = found[:, 2] > 0
        assert known.mean() > 0.5
        np.testing.assert_allclose(np.median(found[known, 1]), dx, atol=0.5)


def test_shifting_an_image_agrees_with_scipy() -> None:
    image = RANDOM_SPECKLE.astype(np.float32)
    expected = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(image), (3.3, -2.6))).real
    inside = (slice(4, None), slice(None, -3))
    np.testing.assert_allclose(shifted(image, 3.3, -2.6)[inside], expected[inside], atol=1e-5)


def test_a_lattice_is_not_shifted_by_one_of_its_vectors() -> None:
    """Within a frame full of perfect lattice nothing but the distance tells peaks apart.

    Shifts are in pixels of band-passed images, which are twice as large.
    """
    y, x = np.mgrid[:256, :256]
    one, other = (
        band_pass((np.cos(2 * np.pi * (y - d) / 20) + np.cos(2 * np.pi * (x + d) / 20)).astype(np.float32))[0]
        for d in (0, 4)
    )
    assert find_shift(spectrum_of(one), spectrum_of(other), one.shape, (0.0, 0.0))[:2] == (2, -2)
    assert find_shift(spectrum_of(one), spectrum_of(other), one.shape, (11.0, -3.0))[:2] == (12, -2)


@given(rows=st.integers(8, 40), columns=st.integers(8, 40), binning=st.integers(1, 4))
def test_binning_is_the_mean_of_squares(rows: int, columns: int, binning: int) -> None:
    frame = np.random.default_rng(rows).integers(0, 1000, (rows, columns)).astype(np.uint16)
    part = frame[: rows // binning * binning, : columns // binning * binning]
    expected = part.reshape(len(part) // binning, binning, -1, binning).mean((1, 3))
    np.testing.assert_allclose(binned(frame, binning), expected, rtol=1e-5)


def test_pixels_that_are_not_finite_count_as_the_mean() -> None:
    frame = np.array([[1, np.nan], [np.inf, 3]], np.float32)
    np.testing.assert_array_equal(binned(frame, 1), [[1, 2], [2, 3]])
    np.testing.assert_array_equal(binned(np.full((2, 2), np.nan), 1), np.zeros((2, 2)))


@given(st.integers(1, 5000))
def test_blocks_hold_each_frame_once(frames: int) -> None:
    made = blocks(frames)
    assert [t for block in made for t in block] == list(range(frames))
    assert len(made) <= 64


@pytest.mark.parametrize(("drift", "seed", "frames"), [(14.0, 1, 32), (3.0, 2, FRAMES)])
def test_drift_is_found_while_a_crystal_turns_and_edges_move(
    tmp_path: Path, drift: float, seed: int, frames: int
) -> None:
    pixels, truth = simulated(tmp_path, drift, seed, frames)
    found = estimate(pixels)
    assert rmse(found, truth) <= 0.15
    assert found.agree
    assert found.to_correct
    assert not found.blank.any()


def test_a_still_scene_is_followed_more_precisely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movies, "MISFIT_DEGREES", (9.3, 9.3))
    monkeypatch.setattr(movies, "_EDGE_SHIFT", 0.0)
    pixels, truth = simulated(tmp_path, 10.0, 3)
    found = estimate(pixels)
    assert rmse(found, truth) <= 0.06
    assert found.agree


def test_what_turns_and_grows_is_no_drift(tmp_path: Path) -> None:
    found = estimate(simulated(tmp_path, 0.0, 4)[0])
    assert abs(path(found)).max() < 0.5
    assert found.agree
    assert not found.to_correct


def vignetting(pixels: np.ndarray) -> np.ndarray:
    y, x = np.ogrid[:320, :448]
    return np.asarray(pixels * np.exp(-((y - 160) ** 2 + (x - 224) ** 2) / (2 * 200**2)))


def hot_pixels(pixels: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    hot = pixels.astype(np.int64)
    hot[:, random.integers(0, 320, 300), random.integers(0, 448, 300)] += 2000
    return hot


def fixed_gain(pixels: np.ndarray) -> np.ndarray:
    return pixels * (1 + 0.03 * np.random.default_rng(0).standard_normal((320, 448)))


def lost_pixels(pixels: np.ndarray) -> np.ndarray:
    lost = pixels.astype(np.float32)
    lost[:, 100:110, 200:230] = np.nan
    return lost


@pytest.mark.parametrize("damage", [vignetting, hot_pixels, fixed_gain, lost_pixels])
def test_what_the_detector_holds_still_does_not_hold_the_drift(
    damage: Callable[[np.ndarray], np.ndarray], movie: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, truth = movie
    found = estimate(damage(pixels))
    assert rmse(found, truth) <= 0.17
    assert found.agree


def test_blank_and_foreign_frames_are_bridged(movie: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, truth = movie[0].copy(), movie[1]
    random = np.random.default_rng(0)
    pixels[[0, 8]] = 0  # the first frames of blocks
    pixels[9] = random.poisson(1, pixels[9].shape)  # beam off
    pixels[17] = random.permutation(pixels[17].ravel()).reshape(pixels[17].shape)[::-1]
    found = estimate(pixels)
    assert np.flatnonzero(found.blank).tolist() == [0, 8, 9, 17]
    np.testing.assert_array_equal(found.drift.quality[found.blank], 0)
    assert (found.drift.quality[~found.blank] > 0.5).all()
    seen = ~found.blank
    assert np.sqrt(np.square((path(found) - truth + truth[1])[seen]).mean()) <= 0.15
    assert abs(path(found) - truth + truth[1])[1:].max() < 0.6
    assert found.agree


def test_a_jump_is_followed(movie: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, truth = movie[0].copy(), movie[1].copy()
    pixels[12:] = np.roll(pixels[12:], (17, -12), (1, 2))
    truth[12:] += (17, -12)
    found = estimate(pixels)
    assert rmse(found, truth) <= 0.17
    assert found.agree


def test_noise_alone_is_not_corrected() -> None:
    found = estimate(np.random.default_rng(0).poisson(60, (12, 128, 128)))
    assert not found.agree
    assert not found.to_correct
    assert not found.drift.whole().any()


def test_a_movie_without_a_single_image_is_not_corrected() -> None:
    found = estimate(np.zeros((9, 100, 120), np.uint8))
    assert found.blank.all()
    assert not found.agree
    assert np.isfinite(path(found)).all()


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_short_movies_have_a_drift_too(movie: tuple[np.ndarray, np.ndarray], frames: int) -> None:
    found = estimate(movie[0][:frames])
    assert rmse(found, movie[1][:frames]) <= 0.2
    assert found.agree == (frames > 1)


def test_halves_that_move_apart_are_not_corrected(movie: tuple[np.ndarray, np.ndarray]) -> None:
    first = movie[0][0]
    frames = []
    for t in range(FRAMES):
        left, right = np.roll(first, t // 2, 0), np.roll(first, -(t // 2), 0)
        frames.append(np.where(np.arange(448) < 224, left, right))
    assert not estimate(np.random.default_rng(0).poisson(np.stack(frames))).agree


def test_frames_are_read_at_most_twice_and_blocks_know_only_their_own(movie: tuple[np.ndarray, np.ndarray]) -> None:
    reads: list[int] = []

    def read(t: int) -> np.ndarray:
        reads.append(t)
        return np.asarray(movie[0][t])

    parts = blocks(FRAMES)
    backwards = [measure_block(block, read) for block in reversed(parts)][::-1]
    assert max(reads.count(t) for t in range(FRAMES)) <= 2
    assert len(reads) == FRAMES + len(parts) - 1
    np.testing.assert_array_equal(path(solve_drift(backwards)), path(estimate(movie[0])))


def test_large_frames_are_binned(movie: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrtemvae_hpc.drift.measure._LARGEST_SIDE", 224)
    assert rmse(estimate(movie[0]), movie[1]) <= 0.3


def test_what_else_changes_is_measured(movie: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = movie[0].astype(np.float64)
    pixels[5] *= 1.5
    pixels[9] = ndimage.gaussian_filter(pixels[9], 5)  # out of focus: no lattice
    found = estimate(pixels)
    assert found.mean == pytest.approx(pixels.mean((1, 2)), rel=1e-5)
    assert found.contrast == pytest.approx(pixels.std((1, 2)) / pixels.mean((1, 2)), rel=1e-4)
    assert found.focus.argmin() == 9
    assert found.focus[9] < 0.7 * np.median(found.focus)
    assert found.focus[5] == pytest.approx(np.median(found.focus), rel=0.2)


@given(shifts=st.lists(st.floats(-30, 30), min_size=3, max_size=40))
def test_what_whole_pixels_leave_does_not_follow_time(shifts: list[float]) -> None:
    dy = np.array([0.0, *shifts])
    whole = Drift(dy, dy, np.ones(len(dy))).whole()
    rest, plain = dy - whole[:, 0], dy - np.rint(dy)
    assert whole[0].tolist() == [0, 0]
    np.testing.assert_array_equal(whole[:, 0], whole[:, 1])
    assert np.ptp(rest) <= 1
    time = np.arange(len(dy)) - np.arange(len(dy)).mean()
    assert abs(rest @ time) <= abs(plain @ time) + 1e-8


def test_less_than_half_a_pixel_is_not_followed() -> None:
    dy = np.array([0.0, 0.2, 0.4, 0.49])
    assert not Drift(dy, -dy, np.ones(4)).whole().any()


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    drift = Drift(np.array([0.0, 1.2345]), np.array([0.0, -6.5]), np.array([0.5, 1.0]))
    for times in (None, np.array([0.0, 0.8])):
        write_drift(tmp_path / "d.csv", drift, np.array([3, 5]), times)
        found = read_drift(tmp_path / "d.csv", np.array([3, 5]), 64, 64)
        for name in ("dy", "dx", "quality"):
            np.testing.assert_array_equal(getattr(found, name), getattr(drift, name))
    assert (tmp_path / "d.csv").read_text().splitlines()[2] == "5,0.8,1.2345,-6.5000,1.0000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line"),
        ("a,b\n1,2\n", "first line"),
        ("{head}\n0,0,0,0,1\n", "has 1 frames, but 2"),
        ("{head}\n0,0,0,0,1\n1,0,down,0,1\n", "row of frame 1"),
        ("{head}\n0,0,0,0,1\n1,0,0,0\n", "row of frame 1"),
        ("{head}\n0,0,0,0,1\n2,0,0,0,1\n", "frame 2"),
        ("{head}\n0,0,nan,0,1\n1,0,0,0,1\n", "finite"),
        ("{head}\n0,0,1e300,0,1\n1,0,0,0,1\n", "finite"),
        ("{head}\n0,0,0,0,1\n1,0,0,0,7\n", "quality"),
        ("{head}\n0,0,0,0,1\n1,0,0,64,1\n", "larger than the frame"),
        ("\xff\xfe\x00", "can't be read"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    table = tmp_path / "d.csv"
    table.write_bytes(text.format(head="frame,time_s,dy_px,dx_px,quality").encode("latin-1"))
    with pytest.raises(InputError, match=words) as refused:
        read_drift(table, np.arange(2), 64, 64)
    assert str(table) in str(refused.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_drift(tmp_path / "none.csv", np.arange(2), 64, 64)


def test_simulated_drift_is_kept_as_truth_and_none_leaves_the_pixels(tmp_path: Path) -> None:
    pixels, truth = simulated(tmp_path, 12.0, 0, frames=3)
    still, _ = simulated(tmp_path, 0.0, 0, frames=3)
    np.testing.assert_array_equal(pixels[0], still[0])
    assert truth[0].tolist() == [0, 0]
    assert abs(truth[-1] - (12, 6)).max() < 1.5
    with pytest.raises(InputError, match="drift of 65"):
        simulate_movie(tmp_path / "n.h5", 3, 192, 192, 60.0, 0, 65.0)


def test_the_nanotubes_drift_as_pystackreg_finds(shared: Path) -> None:
    """Neither of its references slips on these frames, within which the specimen jumps by 3 pixels."""
    stackreg = pytest.importorskip("pystackreg").StackReg
    with h5py.File(shared / "data/movies/nist_cnt_growth.h5") as file:
        pixels = file["entry/data/data"][14:32]
    found = estimate(pixels)
    assert found.agree
    oracle = np.zeros((len(pixels), 2))
    for reference in ("previous", "first"):
        matrices = stackreg(stackreg.TRANSLATION).register_stack(pixels.astype(float), reference=reference)
        shifts = matrices[:, (1, 0), 2]
        oracle += (shifts - shifts[0]) / 2
    assert abs(np.diff(oracle, axis=0)).max() > 2.5
    assert abs(path(found) - oracle).max() <= 0.3

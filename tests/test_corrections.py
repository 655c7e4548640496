"""Corrections of frames against LiberTEM, and sums against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.corrections import BadPixels, Corrections

DTYPES = ("u1", "u2", "i2", "f4", "f8")


def corrected(corrections: Corrections, frame: np.ndarray) -> np.ndarray:
    total = np.zeros(corrections.shape(*frame.shape), corrections.dtype(frame.dtype))
    corrections.add(frame, total)
    return total


def random_frame(random: np.random.Generator, shape: tuple[int, int], dtype: str) -> np.ndarray:
    return random.normal(100, 20, shape).astype(dtype)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    dtype=st.sampled_from(DTYPES),
    share=st.floats(0, 0.3),
)
def test_as_libertem(seed: int, shape: tuple[int, int], dtype: str, share: float) -> None:
    """LiberTEM rounds to float32 once, after the product; of the same neighbours of a bad pixel it takes the mean."""
    detector = pytest.importorskip("libertem.corrections.detector")
    random = np.random.default_rng(seed)
    frame = random_frame(random, shape, dtype)
    wide = np.float64 if dtype == "f8" else np.float32
    dark, gain = (random.normal(mean, 0.1, shape).astype(wide) for mean in (3, 1))
    bad = random.random(shape) < share
    bad[0, 0] = False
    expected = detector.correct(frame, dark, gain)
    near = detector.RepairDescriptor(shape, np.array(np.nonzero(bad)), allow_empty=True)
    ours = corrected(Corrections(dark, gain, BadPixels.of(bad)), frame)
    assert ours.dtype == wide
    np.testing.assert_allclose(ours[~bad], expected[~bad], rtol=3e-7)
    for place, neighbours, count in zip(near.exclude_flat, near.repair_flat, near.repair_counts, strict=True):
        if count:
            assert ours.flat[place] == np.median(ours.flat[neighbours[:count]])


def test_a_mean_equals_the_median_where_neighbours_are_symmetric() -> None:
    correction_set = pytest.importorskip("libertem.corrections").CorrectionSet
    common = pytest.importorskip("libertem.common")
    y, x = np.mgrid[:8, :10]
    frame = (3 * y + 5 * x + 7).astype(np.float32)
    dark, gain = np.full(frame.shape, 2, np.float32), np.full(frame.shape, 3, np.float32)
    bad = np.zeros(frame.shape, bool)
    bad[3, 4] = bad[6, 7] = True
    theirs = frame[None].copy()
    whole = common.Slice((0, 0, 0), common.Shape((1, 8, 10), sig_dims=2))
    correction_set(dark, gain, bad).apply(theirs, whole)
    np.testing.assert_allclose(corrected(Corrections(dark, gain, BadPixels.of(bad)), frame), theirs[0], rtol=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.95), dtype=st.sampled_from(DTYPES))
def test_bad_pixels_against_a_plain_loop(seed: int, share: float, dtype: str) -> None:
    random = np.random.default_rng(seed)
    frame, bad = random_frame(random, (9, 11), dtype), random.random((9, 11)) < share
    bad[4, 4] = False
    expected = frame.copy()
    for y, x in zip(*np.nonzero(bad), strict=True):
        near: np.ndarray = np.array([])
        for r in range(1, 12):
            square = np.s_[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]
            near = frame[square][~bad[square]]
            if near.size:
                break
        median = np.median(near)
        expected[y, x] = median if frame.dtype.kind == "f" else np.rint(median)
    ours = corrected(Corrections(bad=BadPixels.of(bad)), frame)
    assert ours.dtype == frame.dtype
    np.testing.assert_array_equal(ours, expected)


def test_pixels_that_are_all_bad_are_refused() -> None:
    with pytest.raises(InputError, match="all pixels are bad"):
        BadPixels.of(np.ones((3, 3), bool))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    binning=st.integers(1, 4),
    together=st.integers(1, 3),
)
def test_sums_against_a_plain_loop(seed: int, dtype: str, binning: int, together: int) -> None:
    frames = np.random.default_rng(seed).normal(0 if dtype[0] != "u" else 100, 30, (together, 9, 13)).astype(dtype)
    corrections = Corrections(binning=binning)
    rows, columns = corrections.shape(9, 13)
    total = np.zeros((rows, columns), corrections.dtype(frames.dtype, together))
    for frame in frames:
        corrections.add(frame, total)
    for y in range(rows):
        for x in range(columns):
            square = frames[:, y * binning : (y + 1) * binning, x * binning : (x + 1) * binning]
            assert total[y, x] == pytest.approx(square.sum(dtype=float), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize(
    ("dtype", "terms", "expected"),
    [
        ("u1", 1, "u1"),
        ("u1", 4, "u2"),
        ("u1", 257, "u2"),
        ("u1", 258, "u4"),
        ("i1", 2, "i2"),
        ("u2", 4, "u4"),
        ("i4", 9, "i8"),
        ("f2", 1, "f2"),
        ("f2", 4, "f4"),
        ("f4", 100, "f4"),
        ("f8", 4, "f8"),
    ],
)
def test_sums_have_the_smallest_type_that_holds_them(dtype: str, terms: int, expected: str) -> None:
    assert Corrections().dtype(np.dtype(dtype), terms) == np.dtype(expected)


def test_sums_that_no_integer_holds_are_refused() -> None:
    with pytest.raises(InputError, match="no integer type holds sums of 4"):
        Corrections(binning=2).dtype(np.dtype("u8"))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
def test_a_dark_image_makes_integers_float32(dtype: str) -> None:
    assert Corrections(dark=np.zeros((2, 2))).dtype(np.dtype(dtype)) == np.float32

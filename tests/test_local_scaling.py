"""Scaling each pixel by those around it, against numpy pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_local

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.scaling import LocalScaling, margin, scaled_windows, sums


@settings(max_examples=60, deadline=None)
@given(
    window=st.integers(1, 20),
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    level=st.sampled_from([0.0, 1e6]),
    lost=st.floats(0, 0.9),
    seed=st.integers(0, 100),
)
def test_each_pixel_is_scaled_by_those_around_it(
    window: int, rows: int, columns: int, level: float, lost: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    frame = level + random.integers(0, 50, (rows, columns)).astype(float)
    frame[random.random(frame.shape) < lost] = random.choice([np.nan, np.inf, -np.inf])
    scaled = LocalScaling(frame.shape, window).apply(torch.from_numpy(frame), Area.whole(*frame.shape))
    np.testing.assert_allclose(scaled, plain_local(frame, window), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), window=st.integers(1, 20), shape=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_an_area_has_the_values_of_the_whole(data: st.DataObject, window: int, shape: tuple[int, int]) -> None:
    frames = torch.randint(1000, (2, *shape), generator=torch.Generator().manual_seed(0)).float()
    frames[0, 0, 0] = torch.nan
    spans = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    area = Area(*(slice(*span) for span in spans))
    local = LocalScaling(shape, window)
    rows, columns = local.source(area)
    part = local.apply(frames[:, rows, columns], area)
    whole = local.apply(frames, Area.whole(*shape))[:, area.rows, area.columns]
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-6, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(window=st.integers(1, 70), extra=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_sums_of_squares(window: int, extra: tuple[int, int]) -> None:
    x = torch.randint(
        100, (2, window + extra[0], window + extra[1]), generator=torch.Generator().manual_seed(0)
    ).double()
    expected = x.unfold(1, window, 1).unfold(2, window, 1).sum((3, 4))
    torch.testing.assert_close(sums(x, window), expected, rtol=0, atol=0)


def test_a_shift_and_a_factor_change_nothing() -> None:
    frame = torch.from_numpy(np.random.default_rng(0).random((40, 50)))
    local, whole = LocalScaling(frame.shape, 16), Area.whole(40, 50)
    torch.testing.assert_close(local.apply(3e4 * frame - 7e6, whole), local.apply(frame, whole), rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [15, 16])
def test_simulated_windows_with_their_margin_have_the_values_of_the_frame(window: int) -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((3, 3 * window, 3 * window)))
    around = margin("local", window)
    first, size = 5, window + 2 * around
    middle = slice(first + around, first + around + window)
    cut = scaled_windows(image[:, first : first + size, first : first + size], window, "local")
    whole = LocalScaling(image.shape[1:], window).apply(image, Area.whole(*image.shape[1:]))
    torch.testing.assert_close(cut, whole[:, middle, middle], rtol=0, atol=1e-6)
    assert margin("window", window) == 0
    alone = scaled_windows(image, window, "window")
    assert (alone.amin((1, 2)) == 0).all()
    assert (alone.amax((1, 2)) == 1).all()

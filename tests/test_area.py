"""Rectangles of pixels against what numpy cuts out of a frame."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area

HEIGHT, WIDTH = 12, 9


def spans(size: int) -> st.SearchStrategy[slice]:
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(lambda s: slice(s[0], min(size, s[0] + s[1])))


areas = st.builds(Area, spans(HEIGHT), spans(WIDTH))


@given(areas)
def test_an_area_counts_the_pixels_that_it_cuts_out(area: Area) -> None:
    cut = np.zeros((HEIGHT, WIDTH))[area]
    assert (area.height, area.width, area.pixels) == (*cut.shape, cut.size)


@given(areas, areas)
def test_the_part_of_an_area_within_another_is_what_both_hold(area: Area, other: Area) -> None:
    marked = np.zeros((HEIGHT, WIDTH), bool)
    marked[area] = True
    found = np.zeros((other.height, other.width), bool)
    found[area.within(other)] = True
    np.testing.assert_array_equal(found, marked[other])


@given(areas)
def test_all_of_a_frame(area: Area) -> None:
    whole = Area.whole(HEIGHT, WIDTH)
    assert whole.pixels == HEIGHT * WIDTH
    assert area.within(whole) == area
    assert whole.within(area) == area.within(area) == Area.whole(area.height, area.width)

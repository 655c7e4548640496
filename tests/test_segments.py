"""Segments: read from microscopes' files, separated from background by fringes, split by micrograph, on many ranks."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from commands import Program
from conftest import assert_refused, write_micrograph
from hypothesis import given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.fourier.threshold import FRINGE_THRESHOLD
from hrtemvae_hpc.movie.resample import Resampler, scaled_shape
from hrtemvae_hpc.segments.micrographs import find_micrographs, read_micrographs
from hrtemvae_hpc.segments.segment_file import open_segments
from hrtemvae_hpc.simulation.lattice_windows import Simulation, random_windows


def test_segments_hold_fringes_and_know_where_they_come_from(
    hrtemvae: Program, micrographs: Path, tmp_path: Path
) -> None:
    outcome = hrtemvae("segments", micrographs, "-o", "s.h5", "--stride", 16, "--most", 30)
    assert outcome.code == 0, outcome.text
    assert "broken.dm3" in outcome.text
    assert "small.tif" in outcome.text
    assert "notes.txt" not in outcome.text
    assert (tmp_path / "s.html").read_text().count("broken.dm3") == 1
    segments = open_segments(tmp_path / "s.h5")
    assert segments.pixel_size_nm == pytest.approx(0.02, rel=1e-3)
    assert np.median(segments.period) == pytest.approx(7, rel=0.03)
    assert len(segments.segments) == 6 * 30
    with h5py.File(tmp_path / "s.h5") as file:
        place = file["place"][...]
        names = [json.loads(t)["name"] for t in file["sources"].asstr()[...]]
    # None is from the noise on the right half, and each is what its place holds, scaled.
    assert place[:, 1].max() < 100
    for i in range(0, 180, 37):
        image = tifffile.imread(micrographs / names[segments.source[i]]).astype(float)
        own = image[place[i, 0] :, place[i, 1] :][:64, :64]
        expected = (own - own.min()) / (own.max() - own.min())
        np.testing.assert_allclose(segments.segments[i] / 65535, expected, atol=1e-5)
    # Whole micrographs are held out.
    held_out = {int(s) for s in segments.source[segments.validation]}
    assert len(held_out) == 1
    assert not held_out & {int(s) for s in segments.source[~segments.validation]}


def test_three_ranks_write_the_same_file_as_one(hrtemvae: Program, micrographs: Path, tmp_path: Path) -> None:
    options = ("--stride", 16, "--most", 20, "--turns", 1, "--clip-outliers", "--low-pass", "--pixel-size", 0.016)
    assert hrtemvae("segments", micrographs, "-o", "alone.h5", *options).code == 0
    outcome = hrtemvae("segments", micrographs, "-o", "ranks.h5", *options, ranks=3)
    assert outcome.code == 0, outcome.text
    one, other = open_segments(tmp_path / "alone.h5"), open_segments(tmp_path / "ranks.h5")
    assert one.sha256 == other.sha256
    assert one.pixel_size_nm == pytest.approx(0.016)
    assert np.median(one.period) == pytest.approx(7 * 0.02 / 0.016, rel=0.03)
    assert not (tmp_path / "ranks.h5.parts").exists()


def test_one_micrograph_is_split_without_overlap(hrtemvae: Program, tmp_path: Path) -> None:
    write_micrograph(tmp_path / "m.tif", 0, size=400)
    outcome = hrtemvae("segments", "m.tif", "-o", "s.h5", "--stride", 8, "--validation", 0.3)
    assert outcome.code == 0, outcome.text
    segments = open_segments(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        rows = file["place"][:, 0]
    assert rows[segments.validation].min() >= rows[~segments.validation].max() + 64


def test_bad_input(hrtemvae: Program, micrographs: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(100, (200, 200)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "noise.tif", noise)
    assert_refused(hrtemvae("segments", "noise.tif", "-o", "s.h5"), "no segment with lattice fringes", "--threshold")
    assert_refused(hrtemvae("segments", "none.tif", "-o", "s.h5"), "none.tif")
    assert_refused(hrtemvae("segments", "-o", "s.h5"), "--simulated")
    assert_refused(hrtemvae("segments", micrographs, "-o", "no/s.h5"), "no such folder")
    assert_refused(hrtemvae("segments", micrographs, "-o", "s.h5", "--stride", 0), "--stride")
    assert_refused(hrtemvae("segments", micrographs, "-o", "s.h5", "--frames", "a:b"), "--frames")
    assert_refused(hrtemvae("segments", "--simulated", 3, "-o", "s.h5"), "--simulated 3")
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("name", "count", "size", "scale"),
    [
        ("micrographs/16_STOimage_1.ser", 1, (1024, 1024), 0.0100),
        ("micrographs/example_Au_nanoparticle.emd", 1, (2048, 2048), 0.0075),
        ("micrographs/Acquisition_18.emd", 1, (1024, 1024), 0.0122),
        ("formats/temp.mrc", 3, (128, 128), 0.2),
        ("formats/fei_example_tem_stack.emd", 2, (3, 3), 0.00817),
        ("formats/dm4_3d_test-2.dm4", 2, (2, 2), None),
        ("movies/nist_cnt_growth.h5", 62, (455, 480), 0.0532),
    ],
)
def test_formats(shared: Path, name: str, count: int, size: tuple[int, int], scale: float | None) -> None:
    images = list(read_micrographs(shared / "data" / name))
    assert (len(images), images[0].pixels.shape) == (count, size)
    assert images[0].pixel_size_nm == (None if scale is None else pytest.approx(scale, rel=0.01))


def test_series_are_not_read_twice(shared: Path) -> None:
    names = [p.name for p in find_micrographs([shared / "data/micrographs"])]
    assert "16_STOimage_1.ser" in names
    assert "16_STOimage.emi" not in names


def test_noise_has_no_fringes_and_lattices_have_theirs() -> None:
    torch.manual_seed(0)
    noise = torch.rand(1500, 64, 64)
    film = torch.nn.functional.avg_pool2d(torch.randn(1500, 1, 68, 68), 5, 1)[:, 0]  # grains, without fringes
    for background in (noise, film + 0.1 * torch.randn(1500, 64, 64)):
        assert int((find_fringes(background)[0] > FRINGE_THRESHOLD).sum()) <= 2
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for period in (4.0, 8.5, 14.0, 20.5, 25.0):
        for angle in (0.0, 0.4, 1.2):
            phase = 2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / period
            strength, found = find_fringes((0.2 * torch.cos(phase) + noise[0])[None])
            assert float(strength) > FRINGE_THRESHOLD, (period, angle)
            assert float(found) == pytest.approx(period, rel=0.04)


@pytest.mark.parametrize("order", [2, 3])
def test_the_period_is_not_that_of_a_harmonic(order: int) -> None:
    noise = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phase = 2 * np.pi * (y * np.sin(0.4) + x * np.cos(0.4)) / 20.5
    for fundamental, period in ((0.12, 20.5), (0.0, 20.5 / order)):
        fringes = fundamental * torch.cos(phase) + 0.2 * torch.cos(order * phase)
        assert float(find_fringes((fringes + noise)[None])[1]) == pytest.approx(period, rel=0.04)


def test_simulated_segments_show_the_periods_asked_for() -> None:
    segments = random_windows(600, 64, Simulation(), torch.Generator().manual_seed(0))
    assert float(segments.amin()) == 0
    assert float(segments.amax()) == 1
    strength, period = find_fringes(segments)
    shown = period[strength > FRINGE_THRESHOLD]
    assert len(shown) > 400
    low, high = np.percentile(shown.numpy(), (5, 95))
    assert 9 < low < 15
    assert 20 < high < 26


@settings(deadline=None, max_examples=40)
@given(
    st.integers(5, 60),
    st.integers(5, 60),
    st.floats(0.2, 5),
    st.data(),
)
def test_resampling_is_that_of_pytorch_however_it_is_cut(
    height: int, width: int, factor: float, data: st.DataObject
) -> None:
    resampler = Resampler(height, width, scaled_shape(height, width, factor))
    frame = torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.interpolate(frame[None, None], size=resampler.shape, mode="bicubic", antialias=True)
    if factor > 1 or min(height, width) * factor >= 3:
        torch.testing.assert_close(resampler.whole(frame), expected[0, 0], rtol=0, atol=1e-9)
    spans = []
    for n in resampler.shape:
        start = data.draw(st.integers(0, n - 1))
        spans.append(slice(start, data.draw(st.integers(start + 1, n))))
    area = Area(*spans)
    part = frame[resampler.source(area)]
    torch.testing.assert_close(resampler.apply(part, area), resampler.whole(frame)[area])


def test_a_pixel_that_is_not_finite_stays_where_it_is() -> None:
    frame = torch.rand(40, 40)
    frame[20, 10] = torch.nan
    bad = torch.isnan(Resampler(40, 40, (80, 80)).whole(frame))
    rows, columns = torch.where(bad)
    assert bad.any()
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (37, 44, 17, 24)

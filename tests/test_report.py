"""The report: a page that needs nothing else, PNG files and calibrated TIFF stacks."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pytest
import tifffile
from commands import Program
from conftest import MAPS, read_maps
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from results import LATENTS, made_up_info, make_up_result, tiles_of

from hrtemvae_hpc.maps.colours import table
from hrtemvae_hpc.maps.figures import single_maps
from hrtemvae_hpc.maps.page_data import map_pictures, viewer_data
from hrtemvae_hpc.maps.panel import panel_of
from hrtemvae_hpc.maps.pictures import COLOURS, MOST_SAMPLES, code, limits, map_png, thinned
from hrtemvae_hpc.maps.report import rank_latents, write_result_page
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.maps.result_writing import write_result


@pytest.fixture
def result(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> Path:
    assert hrtemvae("simulate", "-o", "m.h5", "--frames", 5, "--size", 192, 240).code == 0
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "--step", 16, "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    return tmp_path / "maps.h5"


def pictures_in(page: Path) -> list[Image.Image]:
    found = re.findall(r'"data:image/png;base64,([^"]+)"', page.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_page_needs_nothing_else_and_describes_the_run(result: Path) -> None:
    html = result.with_suffix(".html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html) == []
    assert re.findall(r"@import|url\(", html) == []
    assert re.findall(r"https?://\S+", html) == ["https://github.com/leeoniya/uPlot"]  # in the comment with its licence
    assert "content=\"default-src 'none'; img-src data:;" in html, "a browser would refuse to load anything"
    assert "Permission is hereby granted, free of charge" in html
    for words in ("m.h5", "random", "5 frames", "read amplification", "hrtemvae analyze", "0.0145 nm per pixel"):
        assert words in html


def test_a_page_holds_all_maps_once(result: Path) -> None:
    pictures = pictures_in(result.with_suffix(".html"))
    frames, maps = ([p for p in pictures if p.mode == mode] for mode in ("L", "P"))
    assert [f.size for f in frames] == [(240, 192)] * 5
    assert all(np.asarray(f).std() > 20 for f in frames)
    assert len(maps) == (4 + 3) * 5 + 2
    assert {m.size for m in maps} == {(15, 12)}


@pytest.mark.parametrize("name", sorted(COLOURS.values()))
def test_colours_are_those_of_matplotlib(name: str) -> None:
    expected = 255 * mpl.colormaps[name](np.arange(256))[:, :3]
    assert np.abs(table(name) - expected).max() < 5


@pytest.mark.parametrize("name", [*MAPS, "valid_frames"])
@given(st.data())
def test_values_as_small_integers(name: str, data: st.DataObject) -> None:
    """Each value is found again to half a step, where steps are even in the root of the value's power."""
    low = {"spearman": -1, "mean": -9}.get(name, 0)
    high = 1 if name == "spearman" else 1e30
    number = st.floats(low, high, allow_nan=False) | st.just(np.nan)
    values = np.array(data.draw(st.lists(number, min_size=1, max_size=9)))[None]
    coded = code(name, values)
    again = coded.values_of(coded.codes)
    np.testing.assert_array_equal(np.isnan(again), np.isnan(values))
    span = (coded.high - coded.low) or 1.0
    roots = [(np.clip((v - coded.low) / span, 0, 1)) ** (1 / coded.power) for v in (values, again)]
    assert np.nanmax(np.abs(roots[0] - roots[1]), initial=0) <= 0.5001 / 254


def test_a_map_has_the_colours_of_its_values() -> None:
    values = np.random.default_rng(0).gamma(1, 1, (30, 40))
    values[3, 4] = np.nan
    low, high = 0.0, float(np.nanpercentile(values, 99.5))
    assert limits("variance", values) == pytest.approx((low, high))
    picture = Image.open(io.BytesIO(map_png("variance", code("variance", values), (low, high))))
    drawn = np.asarray(picture.convert("RGBA")).astype(float)
    expected = 255 * mpl.colormaps["viridis"](((values - low) / (high - low)).clip(0, 1))[..., :3]
    np.testing.assert_array_equal(drawn[..., 3] == 0, np.isnan(values))
    assert np.abs(drawn[..., :3] - expected)[np.isfinite(values)].max() < 8


def test_a_page_that_grows_too_large_keeps_the_leading_maps(tmp_path: Path) -> None:
    with open_result(make_up_result(tmp_path / "maps.h5")) as opened:
        ranked = [s.latent for s in rank_latents(opened)]
        whole = map_pictures(opened, ranked, 10**9)
        assert len(whole) == 3 + (4 + 3) * LATENTS
        budget = sum(len(p.picture) for p in whole[:7])
        some = map_pictures(opened, ranked, budget)
    assert [p.title for p in some] == [p.title for p in whole[:7]]
    assert [p.latent for p in some] == [None, None, None, ranked[0], ranked[0], ranked[1], ranked[1]]


def test_a_thinned_map_lies_where_its_windows_are(tmp_path: Path) -> None:
    """The page finds the centre of each of its pixels in two ways: from an origin and a spacing, and in the panel."""
    path = make_up_result(tmp_path / "maps.h5", height=64, width=20_001)
    with open_result(path) as opened:
        pictures = map_pictures(opened, [], 10**6)
        data = viewer_data(opened, panel_of(opened), pictures, [])
        blocks = [opened.x[i : i + 3].mean() for i in range(0, len(opened.x), 3)]
        assert len(opened.x) > 2 * MOST_SAMPLES
        assert thinned(opened.valid_frames).shape == data["shape"] == (len(opened.y), len(blocks))
    whole = slice(0, len(blocks) - 1)  # the last may be of fewer windows
    numbers = np.arange(len(blocks))
    np.testing.assert_allclose((data["origin"][1] + numbers * data["spacing"][1])[whole], blocks[whole])
    left, _, width, _ = data["maps"]
    np.testing.assert_allclose((left + (numbers + 0.5) / len(blocks) * width)[whole], blocks[whole])


def test_ranking_is_by_what_changes_most(result: Path) -> None:
    maps = read_maps(result)["time_correlated_variance"]
    with open_result(result) as opened:
        shown = rank_latents(opened)
    expected = np.percentile(maps.reshape(len(maps), -1), 99, axis=1)
    assert [s.latent for s in shown] == list(np.argsort(-expected))
    for s in shown:
        row, column = np.argwhere(maps[s.latent] == maps[s.latent].max())[0]
        assert s.y == pytest.approx((7.5 + 16 * row) * 0.0145)
        assert s.x == pytest.approx((7.5 + 16 * column) * 0.0145)


def test_windows_that_lack_half_of_the_frames_do_not_count(tmp_path: Path) -> None:
    info = made_up_info()
    ((tile, done),) = tiles_of(info.grid)
    done.maps[MAPS.index("time_correlated_variance"), 1, 0, 0] = 1e6  # where the specimen was seen in two frames of six
    done.valid_frames[0, 0] = 2
    write_result(tmp_path / "maps.h5", tmp_path, info, [(tile, done)])
    with open_result(tmp_path / "maps.h5") as opened:
        shown = rank_latents(opened)
    assert max(s.score for s in shown) < 1000
    assert shown[0].latent == LATENTS - 1


def test_a_movie_of_few_frames_is_taken_with_care(result: Path) -> None:
    assert "With 5 frames, large |rho| occur by chance" in result.with_suffix(".html").read_text()


def test_report_writes_every_map(hrtemvae: Program, result: Path) -> None:
    outcome = hrtemvae("report", "maps.h5", "--tiff")
    assert outcome.code == 0, outcome.text
    folder = result.with_suffix(".report")
    assert (folder / "report.html").stat().st_size > 50_000
    maps = read_maps(result)
    for name in MAPS:
        pictures = sorted((folder / name).glob("*.png"))
        assert [p.name for p in pictures] == [f"z{i:02d}.png" for i in range(5)]
        assert all(Image.open(p).width > 200 for p in pictures)
        with tifffile.TiffFile(folder / f"{name}.tif") as tiff:
            stack = tiff.asarray()
            assert stack.dtype == np.float32
            np.testing.assert_array_equal(stack, maps[name])
            assert tiff.is_imagej
            assert tiff.imagej_metadata["unit"] == "nm"
            assert tiff.imagej_metadata["Labels"][0].startswith("z0 ")
            numerator, denominator = tiff.pages[0].tags["XResolution"].value
            assert denominator / numerator == pytest.approx(16 * 0.0145, rel=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_a_picture_does_not_depend_on_those_drawn_before(tmp_path: Path, name: str) -> None:
    with open_result(make_up_result(tmp_path / "maps.h5")) as opened:
        together = list(single_maps(opened, name))
        alone = [next(single_maps(replace(opened, latent=opened.latent[i:]), name)) for i in range(LATENTS)]
    assert len(set(alone)) == LATENTS
    assert together == alone


def test_a_result_without_any_finite_map_is_reported(tmp_path: Path) -> None:
    info = made_up_info()
    ((tile, done),) = tiles_of(info.grid)
    done.maps[...] = np.nan
    write_result(tmp_path / "maps.h5", tmp_path, info, [(tile, done)])
    page = write_result_page(tmp_path / "maps.h5", tmp_path / "maps.html")
    assert "Nothing to show" in page.read_text()


def test_a_movie_without_movement_is_reported(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    with h5py.File(tmp_path / "still.h5", "w") as file:
        file["m"] = np.tile(np.random.default_rng(0).integers(0, 255, (40, 40), "u1"), (20, 1, 1))
    outcome = hrtemvae("analyze", "still.h5", "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "arning" not in outcome.text
    assert (read_maps(tmp_path / "still.maps.h5")["variance"] == 0).all()

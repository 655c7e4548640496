"""The report: a page that needs nothing else, PNG files and calibrated TIFF stacks."""

import base64
import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from commands import Program
from conftest import MAPS, read_maps
from PIL import Image
from results import made_up_info, tiles_of

from hrtemvae_hpc.maps.report import rank_latents, write_result_page
from hrtemvae_hpc.maps.result import open_result, write_result


@pytest.fixture
def result(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> Path:
    assert hrtemvae("simulate", "-o", "m.h5", "--frames", 5, "--size", 192, 240).code == 0
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "--step", 16, "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    return tmp_path / "maps.h5"


def test_page_needs_nothing_else_and_describes_the_run(result: Path) -> None:
    html = result.with_suffix(".html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html) == []
    assert "http" not in html
    for words in ("m.h5", "random", "5 frames", "read amplification", "hrtemvae analyze", "0.0145 nm per pixel"):
        assert words in html
    images = [Image.open(io.BytesIO(base64.b64decode(b))) for b in re.findall(r'base64,([^"]+)"', html)]
    assert len(images) == 2
    for image in images:
        assert image.width > 700
        assert np.asarray(image.convert("L")).std() > 10


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


def test_a_result_without_any_finite_map_is_reported(tmp_path: Path) -> None:
    info = made_up_info()
    ((tile, done),) = tiles_of(info.grid)
    done.maps[...] = np.nan
    write_result(tmp_path / "maps.h5", tmp_path, info, [(tile, done)])
    page = write_result_page(tmp_path / "maps.h5", tmp_path / "maps.html")
    assert "Nothing to show" in page.read_text()


def test_a_movie_without_movement_is_reported(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    with h5py.File(tmp_path / "still.h5", "w") as file:
        file["m"] = np.tile(np.random.default_rng(0).integers(0, 255, (40, 40), "u1"), (4, 1, 1))
    outcome = hrtemvae("analyze", "still.h5", "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "arning" not in outcome.text
    assert (read_maps(tmp_path / "still.maps.h5")["variance"] == 0).all()

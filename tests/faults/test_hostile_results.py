"""Altered results, and the movies and folders around them: one sentence, and no foreign file is touched."""

import base64
import io
import os
import re
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hostile import refusal, within_budget
from PIL import Image
from results import LATENTS, made_up_info, make_up_result, tiles_of

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.maps.pictures import thinned
from hrtemvae_hpc.maps.report import write_report, write_result_page
from hrtemvae_hpc.maps.result import open_result, read_result
from hrtemvae_hpc.maps.result_writing import write_result
from hrtemvae_hpc.maps.verdict import find_verdicts
from hrtemvae_hpc.movie.write import write_movie
from hrtemvae_hpc.outputs import is_page, is_picture
from hrtemvae_hpc.statistics.over_time import ALL_MAPS

PROCESS, LAST = "entry/process", "entry/time_correlated_variance"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_up_result(tmp_path_factory.mktemp("whole") / "maps.h5", model_groups={"rotation": [0]})


def without(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def with_value(name: str, value: object, **storage: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=value, **storage)

    return change


def with_shape(name: str, shape: tuple[int, ...], dtype: str, **storage: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype, **storage)

    return change


def units(name: str, text: object) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__setitem__("units", text)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 40, 56), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", (2, 40, 56))
    del file["entry/preview/data"]
    file.create_virtual_dataset("entry/preview/data", layout)


def elsewhere(file: h5py.File) -> None:
    del file["entry/preview"]
    file["entry/preview"] = h5py.ExternalLink("other.h5", "/entry/preview")


def bomb(file: h5py.File) -> None:
    with_shape("entry/preview/data", (2, 40, 56), "f4", chunks=(2, 40, 56), compression="gzip")(file)
    file["entry/preview/data"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(2**26)))


def circle(file: h5py.File) -> None:
    del file["entry/process"]
    file["entry/process"] = file["entry"]


ALTERATIONS = {
    **{f"no {name}": without(name) for name in (
        "entry", PROCESS, "entry/mean", "entry/preview", "entry/preview/binning", "entry/valid_frames", f"{LAST}/y",
        f"{LAST}/latent", f"{LAST}/latent_source_index", *(f"{PROCESS}/{n}" for n in (
            "movie", "window", "frames", "bad_frames", "configuration", "region", "ranks", "seconds",
            "model_provenance",
        )),
    )},
    **{f"{name} = {value!r}"[:60]: with_value(f"{PROCESS}/{name}", value) for name, value in (
        ("movie", 7), ("movie", b"\xff\xfe"), ("window", 0), ("window", "sixteen"), ("window", 2**40), ("step", -8),
        ("step", 0), ("step", 0.5), ("resampling", [0.0, 0.0]), ("resampling", [np.nan, 1.0]), ("resampling", [1.0]),
        ("resampling", 1.0), ("resampling", [1e300, 1e300]), ("pixel_size", [-1.0, 1.0]), ("pixel_size", "big"),
        ("frame_time", np.inf), ("frames", "null"), ("frames", "[]"), ("frames", "{}"), ("frames", '["a"]'),
        ("frames", [1, 2, 3]), ("bad_frames", "[-1]"), ("bad_frames", "3"), ("configuration", "[]"),
        ("configuration", '{"movie": 3}'), ("region", "[0, 0, 0, 0]"), ("region", "[3, 43, 5]"),
        ("region", f"[0, {2**62}, 0, {2**62}]"), ("region", "[3, 44, 5, 61]"), ("ranks", '{"rank": 0}'),
        ("ranks", "[[1]]"), ("ranks", "[" * 100_000), ("model_provenance", "[1]"),
        ("model_groups", "[1]"), ("model_groups", '{"rotation": [3]}'), ("model_groups", '{"rotation": [-1]}'),
        ("model_groups", '{"rotation": [1, 1]}'), ("movie_shape", "[6]"),
        ("movie_shape", "[6, 10, 10]"), ("seconds_by_stage", '{"read": "long"}'), ("seconds", np.nan),
        ("encodings", -1), ("read_amplification", [1.0, 2.0]), ("bytes_read", "9" * 400),
    )},
    "2-D maps": with_value(f"{LAST}/data", np.zeros((4, 6), "f4")),
    "maps of another shape": with_value(f"{LAST}/data", np.zeros((LATENTS, 6, 4), "f4")),
    "maps of text": with_value(f"{LAST}/data", [["a"]]),
    "maps of integers": with_value("entry/mean/data", np.zeros((LATENTS, 4, 6), "i4")),
    "a group for maps": lambda file: (without("entry/mean/data")(file), file.create_group("entry/mean/data"))[0],
    "huge maps": with_shape("entry/mean/data", (2**20, 2**20, 2**20), "f4", chunks=(1, 64, 64)),
    "no windows": with_value("entry/valid_frames/data", np.zeros((0, 6), "i4")),
    "huge counts": with_shape("entry/valid_frames/data", (2**31, 2**31), "i4", chunks=(64, 64)),
    "counts of floats": with_value("entry/valid_frames/data", np.full((4, 6), np.nan)),
    "NaN axis": with_value(f"{LAST}/y", np.full(4, np.nan)),
    "reversed axis": with_value(f"{LAST}/x", np.arange(6.0)[::-1]),
    "axis of text": with_value(f"{LAST}/x", ["a", "b"]),
    "huge axis": with_shape(f"{LAST}/x", (2**40,), "f8", chunks=(1024,)),
    "units of control characters": units(f"{LAST}/y", "\x1b[2J\x1b[31m"),
    "units of a number": units(f"{LAST}/y", 3),
    "no units": lambda file: file[f"{LAST}/y"].attrs.__delitem__("units"),
    "latents of floats": with_value(f"{LAST}/latent", np.arange(float(LATENTS))),
    "latents from 100 on": with_value(f"{LAST}/latent", np.arange(100, 100 + LATENTS)),
    "short source index": with_value(f"{LAST}/latent_source_index", [0]),
    "empty preview": with_value("entry/preview/data", np.zeros((2, 0, 5), "f4")),
    "2-D preview": with_value("entry/preview/data", np.zeros((4, 5), "f4")),
    "huge preview": with_shape("entry/preview/data", (2, 2**30, 2**30), "f4", chunks=(1, 64, 64), compression="gzip"),
    "preview by a filter of others": with_value(
        "entry/preview/data", np.zeros((2, 40, 56), "f4"), chunks=(2, 40, 56), **hdf5plugin.Zstd()
    ),
    "preview that inflates": bomb,
    "frame numbers of text": with_value("entry/preview/frame", ["a", "b"]),
    "one frame number": with_value("entry/preview/frame", [3]),
    "binned by nothing": with_value("entry/preview/binning", 0),
    "virtual preview": virtual,
    "preview in another file": elsewhere,
    "preview of /etc/passwd": with_shape("entry/preview/data", (2, 4, 5), "f4", external="/etc/passwd"),
    "series of windows that are not there": with_value("entry/series/row", np.full((4, 6), 4)),
    "series of other cells": with_value("entry/series/data", np.zeros((4, 5, LATENTS, 6), "f2")),
    "huge series": with_shape("entry/series/data", (2**20, 2**20, LATENTS, 6), "f2", chunks=(1, 64, LATENTS, 6)),
    "series of text": with_value("entry/series/data", [[[["a"]]]]),
    "cells without windows": lambda file: file["entry/series"].attrs.__setitem__("side", 0),
    "places of windows that are not there": with_value("entry/windows/row", np.full((4, 6), 4)),
    "windows of another size": with_value("entry/windows/data", np.zeros((24, 3, 2, 8, 8), "u1")),
    "windows of text": with_value("entry/windows/data", [[[["a"]]]]),
    "windows of other cells": lambda file: file["entry/windows"].attrs.__setitem__("side", 3),
    "processes that never are": with_value("entry/processes/span", np.zeros((3, 3), "i8")),
    "a circle": circle,
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_results_are_refused(name: str, whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "maps.h5"))
    with h5py.File(path, "r+") as file:
        ALTERATIONS[name](file)

    def read() -> None:
        with h5py.File(path) as file:
            read_result(path, file)

    assert "is not a result" in refusal(read), "although its digests are ignored"
    assert "is not intact" in refusal(lambda: write_result_page(path, tmp_path / "page.html"))
    assert os.listdir(tmp_path) == ["maps.h5"]


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(3000)], ids=["empty", "text", "a head of HDF5"]
)
def test_files_that_are_not_results_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "maps.h5"
    path.write_bytes(content)
    assert "maps" in refusal(lambda: write_result_page(path, tmp_path / "page.html"))
    os.mkfifo(tmp_path / "pipe")
    assert "there is no such result file" in refusal(
        lambda: write_result_page(tmp_path / "pipe", tmp_path / "page.html")
    )


def pictures(page: Path) -> list[Image.Image]:
    html = page.read_text()
    return [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r'base64,([^"]+)"', html)]


@pytest.mark.parametrize(
    ("height", "width", "pixel_size", "said"),
    [
        (4096, 64, (0.02, 0.02), ""),
        (64, 20_000, (0.02, 0.02), ""),
        (60_000, 16, None, ""),
        (256, 256, (0.02, 20.0), ""),
        (256, 256, (1e308, 1e308), "makes no sense"),
        (256, 256, (1e-300, 5e-324), "makes no sense"),
        (16, 16, (0.02, 0.02), ""),
        (2000, 3000, (0.02, 0.02), ""),
    ],
)
def test_pages_are_bounded_whatever_the_frame(
    height: int, width: int, pixel_size: tuple[float, float] | None, said: str, tmp_path: Path
) -> None:
    binning = min(-(-max(height, width) // 1024), height, width)
    image = np.random.default_rng(0).random((2, height // binning, width // binning), np.float32)
    result = make_up_result(
        tmp_path / "maps.h5", height=height, width=width, pixel_size_nm=pixel_size, preview=(image, binning, (0, 5))
    )
    page = tmp_path / "page.html"
    assert within_budget(lambda: write_result_page(result, page)) is None
    assert said in page.read_text()
    assert page.stat().st_size < 20_000_000
    for picture in pictures(page):
        # Besides frames and maps, the sheet of at most 100 windows: six images of 16 pixels side by side.
        assert max(picture.size) <= (100 * 16 if picture.size[0] == 6 * 16 else 1024)
    assert np.asarray(pictures(page)[0]).std() > 10


def test_numbers_at_their_limits_are_drawn(tmp_path: Path) -> None:
    info = made_up_info(preview=(np.full((2, 40, 56), np.nan, np.float32), 1, (0, 5)), bad_frames=list(range(5000)))
    ((tile, done),) = tiles_of(info.grid)
    for number, value in enumerate((3e38, np.inf, np.nan, 1e-45)):
        done.maps[...] = value
        done.maps[:, 0, 0, 0] = 1
        done.maps[ALL_MAPS.index("change")] = 3  # a frame's index
        path = tmp_path / f"{number}.h5"
        with np.errstate(all="ignore"):
            write_result(path, tmp_path, info, [(tile, done)])
            assert within_budget(partial(write_result_page, path, path.with_suffix(".html"))) is None


def test_thinned_maps_are_means_of_what_is_finite() -> None:
    values = np.random.default_rng(0).random((2050, 1030))
    values[values < 0.01] = np.nan
    thin = thinned(values)
    assert thin.shape == (684, 515)
    assert thin[3, 4] == pytest.approx(np.nanmean(values[9:12, 8:10]))
    assert thinned(np.full((3000, 2), np.nan)).shape == (1000, 2)
    assert thinned(values[:1000]) is not None


@pytest.mark.parametrize(
    "truth",
    [
        {"still": np.zeros((3, 3), bool)},
        {name: np.ones((43, 61)) for name in ("still", "rotating", "growing", "shrinking")},
        {name: np.ones((43, 61, 2), bool) for name in ("still", "rotating", "growing", "shrinking")},
        {name: np.ones((61, 43), bool) for name in ("still", "rotating", "growing", "shrinking")},
        {"still": np.array("yes", dtype="S3"), "rotating": np.array(7)},
        {},
        None,
    ],
)
def test_a_movie_with_a_truth_of_its_own_does_not_break_the_page(
    truth: dict[str, np.ndarray] | None, tmp_path: Path
) -> None:
    movie = tmp_path / "movie.h5"
    frames = np.zeros((6, 43, 61), np.uint16)
    write_movie(movie, frames, frames.shape, frames.dtype, 0.02, 0.5, truth or {})
    if truth is None:
        with h5py.File(movie, "r+") as file:
            file["entry/truth"] = 7
    result = make_up_result(tmp_path / "maps.h5", movie=str(movie))
    with open_result(result) as opened:
        assert find_verdicts(opened) == []
    assert "truth of the simulation" not in write_result_page(result, tmp_path / "page.html").read_text()


def test_a_foreign_page_is_not_replaced(whole: Path, tmp_path: Path) -> None:
    page = tmp_path / "notes.html"
    page.write_text("<html>my notes</html>")
    with pytest.raises(InputError, match="may only replace one that this program wrote"):
        write_result_page(whole, page)
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="may only replace one that this program wrote"):
        write_result_page(whole, link)
    assert page.read_text() == "<html>my notes</html>"
    assert not (tmp_path / "nowhere").exists()
    own = write_result_page(whole, tmp_path / "page.html")
    assert is_page(own)
    assert write_result_page(whole, own) == own


def test_a_report_replaces_only_a_report(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a.report"
    page = write_report(whole, folder, tiff=True)
    assert is_page(page)
    assert is_picture(folder / "mean" / "z00.png")
    (folder / "mean" / "z77.png").write_bytes(b"of an earlier, larger model")
    write_report(whole, folder, tiff=False)
    assert not (folder / "mean.tif").exists()
    assert not (folder / "mean" / "z77.png").exists()
    (folder / "mean" / "thesis.txt").write_text("mine")
    before = sorted(p.stat().st_mtime_ns for p in folder.rglob("*"))
    with pytest.raises(InputError, match=r"thesis\.txt"):
        write_report(whole, folder, tiff=True)
    assert sorted(p.stat().st_mtime_ns for p in folder.rglob("*")) == before
    for other in ("mine", "report.html"):
        (tmp_path / other).mkdir()
        (tmp_path / other / "report.html").write_text("mine")
        with pytest.raises(InputError, match="did not put there"):
            write_report(whole, tmp_path / other, tiff=False)
        assert os.listdir(tmp_path / other) == ["report.html"]
    with pytest.raises(InputError, match="is not a folder"):
        write_report(whole, whole, tiff=False)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="is a link"):
        write_report(whole, tmp_path / "link", tiff=False)

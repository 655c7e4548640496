"""Micrographs of all formats: the same images, pixel sizes and refusals as by rosettasciio, but read frame by frame."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from conftest import drifting_pixels
from dm_files import write_dm
from hostile import refusal

from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.segments import micrographs
from hrtemvae_hpc.segments.micrographs import Micrograph, find_micrographs, read_micrographs

PIXELS = drifting_pixels(5, 40, 40)
READERS = {".dm4": "digitalmicrograph", ".emd": "emd", ".emi": "tia", ".mrc": "mrc", ".ser": "tia", ".tif": "tiff"}
NM = {"nm": 1.0, "n_m": 1.0, "pm": 1e-3, "µm": 1000.0, "um": 1000.0, "mm": 1e6}
REFUSED = {
    "dmTest_3D_int16_64,65,66.dm3": "not square",
    "dmTest_3D_int16_64,65,66.dm4": "not square",
    "dmTest_float32_nonSquare_diffPixelSize.dm4": "not square",
    "example2_v3.1.hspy": "a diffraction pattern",
    "fei_example_complex_fft.emd": "complex",
}


def by_rosettasciio(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Frames [n, rows, columns] of the only signal, and its pixel size of rows and columns in nm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (signal,) = import_module(f"rsciio.{READERS[path.suffix]}").file_reader(str(path))
    axes = signal["axes"][-2:]
    known = all(axis["units"] in NM and axis["scale"] > 0 for axis in axes)
    size = (axes[0]["scale"] * NM[axes[0]["units"]], axes[1]["scale"] * NM[axes[1]["units"]]) if known else None
    return np.asarray(signal["data"]).reshape(-1, *signal["data"].shape[-2:]), size


def read(path: Path, *frames: int | None) -> list[Micrograph]:
    return list(read_micrographs(path, slice(*(frames or (None,)))))


@pytest.mark.parametrize("folder", ["micrographs", "formats"])
def test_real_files_are_read_as_by_rosettasciio(shared: Path, folder: str) -> None:
    files = sorted((shared / "data" / folder).iterdir())
    assert len(files) > 5
    for path in files:
        if path.name in REFUSED:
            assert REFUSED[path.name] in refusal(lambda path=path: read(path))  # type: ignore[misc]
            continue
        frames, size = by_rosettasciio(path)
        images = read(path)
        assert [image.frame for image in images] == list(range(len(frames))), path
        np.testing.assert_array_equal([image.pixels for image in images], frames.astype(np.float32), str(path))
        assert images[0].pixel_size_nm == (None if size is None else pytest.approx(size[1])), path


def test_all_that_are_refused_are_there(shared: Path) -> None:
    assert REFUSED.keys() <= {path.name for path in (shared / "data" / "formats").iterdir()}


def write_mrc(path: Path, pixels: np.ndarray) -> None:
    with mrcfile.new(path) as file:
        file.set_data(pixels)
        file.voxel_size = 0.2


WRITERS: dict[str, Any] = {
    "stack.npy": lambda path: np.save(path, PIXELS),
    "image.npy": lambda path: np.save(path, PIXELS[0]),
    "stack.mrc": lambda path: write_mrc(path, PIXELS.astype("u2")),
    "stack.dm4": lambda path: write_dm(path, PIXELS, scales=(0.02, 0.02), units=("nm", "nm")),
    "image.dm3": lambda path: write_dm(path, PIXELS[0], version=3, scales=(0.02, 0.02), units=("nm", "nm")),
    "stack.tif": lambda path: tifffile.imwrite(path, PIXELS, compression="zlib"),
    "colours.tif": lambda path: tifffile.imwrite(path, np.zeros((3, 40, 40, 3), np.uint8)),
    "mask.tif": lambda path: tifffile.imwrite(path, PIXELS[0] > PIXELS[0].mean()),
}
OURS = WRITERS.keys() - {"colours.tif", "mask.tif"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_formats_of_movies_need_no_rosettasciio(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path / name)
    assert find_micrographs([tmp_path]) == [tmp_path / name]
    monkeypatch.setattr(micrographs, "_read_signals", None)
    monkeypatch.setattr(micrographs, "find_spec", lambda _: None)
    assert find_micrographs([tmp_path]) == [tmp_path / name]
    images = read(tmp_path / name)
    expected = PIXELS if len(images) > 1 else PIXELS[:1]
    np.testing.assert_array_equal([image.pixels for image in images], expected)
    assert images[0].pixel_size_nm == (pytest.approx(0.02) if is_calibrated(name) else None)


def is_calibrated(name: str) -> bool:
    return name.endswith((".mrc", ".dm3", ".dm4"))


def test_the_rest_needs_rosettasciio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["mask.tif"](tmp_path / "mask.tif")
    np.testing.assert_array_equal(read(tmp_path / "mask.tif")[0].pixels, PIXELS[0] > PIXELS[0].mean())
    monkeypatch.setattr(micrographs, "find_spec", lambda _: None)
    said = refusal(lambda: read(tmp_path / "mask.tif"))
    assert "install the extra [training]" in said


def test_colours_are_refused(tmp_path: Path) -> None:
    WRITERS["colours.tif"](tmp_path / "colours.tif")
    assert "holds no image" in refusal(lambda: read(tmp_path / "colours.tif"))


@pytest.mark.parametrize("frames", [(None, None, 2), (1, 4, None), (3, 100, None), (7, 9, None)])
def test_frames_are_chosen_as_far_as_a_file_has_them(tmp_path: Path, frames: tuple[int | None, ...]) -> None:
    np.save(tmp_path / "m.npy", PIXELS)
    images = read(tmp_path / "m.npy", *frames)
    chosen = range(len(PIXELS))[slice(*frames)]
    assert [image.frame for image in images] == list(chosen)
    for image in images:
        np.testing.assert_array_equal(image.pixels, PIXELS[image.frame])


def test_a_cut_stack_is_refused_but_for_its_complete_frames(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    np.save(path, PIXELS)
    path.write_bytes(path.read_bytes()[:-10])
    assert "is cut off" in refusal(lambda: read(path))
    assert len(read(path, 0, 4)) == 4


@pytest.mark.parametrize("scale", [-0.02, 0.0, np.nan])
def test_scales_that_are_not_positive_say_nothing(tmp_path: Path, scale: float) -> None:
    path = write_dm(tmp_path / "m.dm4", PIXELS, scales=(scale, scale), units=("nm", "nm"))
    assert read(path)[0].pixel_size_nm is None


@pytest.mark.parametrize("units", ["1/nm", "nm^-1"])
def test_diffraction_patterns_are_refused(tmp_path: Path, units: str) -> None:
    path = write_dm(tmp_path / "m.dm4", PIXELS, scales=(0.02, 0.02), units=(units, units))
    assert "diffraction" in refusal(lambda: read(path))
    with h5py.File(tmp_path / "m.hspy", "w") as file:
        group = file.create_group("Experiments/m")
        group["data"] = PIXELS
        for i, name in enumerate("tyx"):
            axis = group.create_group(f"axis-{i}")
            axis.attrs.update({"name": name, "scale": 0.02, "units": units if i else "s"})
    assert "diffraction" in refusal(lambda: read(tmp_path / "m.hspy"))
    with Movie(tmp_path / "m.hspy") as movie:
        assert movie.source.description.diffraction


def test_tags_of_digitalmicrograph_calibrate_a_tiff_file(tmp_path: Path) -> None:
    tags = [(65003, "s", 3, "nm", True), (65004, "s", 3, "nm", True), (65009, "d", 1, 0.03, True),
            (65010, "d", 1, 0.03, True)]  # fmt: skip
    tifffile.imwrite(tmp_path / "m.tif", PIXELS[0], extratags=tags, software="GATAN", metadata=None)
    ours, (_, size) = read(tmp_path / "m.tif"), by_rosettasciio(tmp_path / "m.tif")
    assert size == pytest.approx((0.03, 0.03))
    assert ours[0].pixel_size_nm == pytest.approx(0.03)


def test_folders_are_searched_to_any_depth(tmp_path: Path) -> None:
    for name in ("a/frame_1.npy", "a/frame_2.npy", "a/b/c/stack.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, PIXELS)
    assert len(find_micrographs([tmp_path])) == 3

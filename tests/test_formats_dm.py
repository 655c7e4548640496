"""DM3 and DM4 files, and recordings in raw files that a DM4 file directs, compared with ncempy and rosettasciio."""

import json
import os
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels
from dm_files import OTHER_TYPES, TYPES, image_tags, taken_at, thumbnail, write_dm, write_images
from hostile import refusal
from ncempy.io import dm
from rsciio.digitalmicrograph import file_reader

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.calibration import convert
from hrtemvae_hpc.movie.formats.dm import DM
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 20, 30)
REAL = [
    "dm4_2d_test-10.dm4",
    "dm4_3d_test-2.dm4",
    "dmTest_3D_int16_64,65,66.dm3",
    "dmTest_3D_int16_64,65,66.dm4",
    "dmTest_float32_nonSquare_diffPixelSize.dm4",
]


def read_all(path: Path, **section: Any) -> np.ndarray:
    with Movie(path, MovieSection.model_validate(section)) as movie:
        return movie.read(slice(0, movie.shape[0]), movie.area)


def assert_as_libraries_read(path: Path) -> None:
    """Pixels, type and calibration, by both libraries."""
    by_ncempy = dm.dmReader(str(path))
    (by_rsciio,) = file_reader(str(path))
    units = [axis["units"] for axis in by_rsciio["axes"]]
    scales = [axis["scale"] for axis in by_rsciio["axes"]]
    assert units == by_ncempy["pixelUnit"]
    with Movie(path) as movie:
        pixels = movie.read(slice(0, movie.shape[0]), movie.area)
        sizes = [convert(float(s), u, "nm") for s, u in zip(scales[-2:], units[-2:], strict=True)]
        if None in sizes:
            assert movie.pixel_size_nm is None
        else:
            assert movie.pixel_size_nm == pytest.approx(sizes)
        expected = convert(float(scales[0]), units[0], "s") if len(units) == 3 else None
        assert movie.frame_time_s == (None if expected is None else pytest.approx(expected))
    for data in (by_ncempy["data"], by_rsciio["data"]):
        frames = data.reshape(-1, *data.shape[-2:])
        assert pixels.dtype == frames.dtype
        np.testing.assert_array_equal(pixels, frames)


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared: Path, name: str) -> None:
    assert_as_libraries_read(shared / "data" / "formats" / name)


def test_all_real_files_are_tested(shared: Path) -> None:
    assert sorted(REAL) == sorted(p.name for p in (shared / "data" / "formats").glob("*.dm*"))


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_all_types(tmp_path: Path, version: int, dtype: str) -> None:
    path = write_dm(tmp_path / f"movie.dm{version}", PIXELS.astype(dtype), version,
                    scales=(0.02, 0.3, 250), units=("nm", "Å", "ms"))  # fmt: skip
    assert_as_libraries_read(path)


@pytest.mark.parametrize(
    ("scales", "units"),
    [((0, 0), ("nm", "nm")), ((-1, -1), ("nm", "nm")), ((2, 2), ("1/nm", "1/nm")), ((1, 1), ("", "")),
     ((1, np.nan), ("nm", "nm")), ((1, 1), ("nm", "s")), ((np.inf, 1), ("nm", "nm"))],
)  # fmt: skip
def test_nonsense_is_not_calibrated(tmp_path: Path, scales: tuple[float, float], units: tuple[str, str]) -> None:
    with Movie(write_dm(tmp_path / "movie.dm4", PIXELS, scales=(*scales, 3), units=(*units, "nm"))) as movie:
        assert movie.pixel_size_nm is None
        assert movie.frame_time_s is None


def test_parts_of_frames(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "movie.dm4", PIXELS)
    np.testing.assert_array_equal(read_all(path, roi=((3, 17), (5, 22)), frames=(1, 5, 2)), PIXELS[1:5:2, 3:17, 5:22])


def test_the_stack_is_taken_among_images_and_thumbnails(tmp_path: Path) -> None:
    still = image_tags(PIXELS[0], "still")
    images = [thumbnail(PIXELS), thumbnail(PIXELS), still, image_tags(PIXELS, "stack"), image_tags(PIXELS[1], "other")]
    np.testing.assert_array_equal(read_all(write_images(tmp_path / "a.dm4", images, thumbnails=2)), PIXELS)
    # A thumbnail need not come first, nor be in colours.
    images = [still, image_tags(PIXELS[0, ::2, ::2], "small")]
    path = write_images(tmp_path / "b.dm4", images, thumbnails=0)
    assert "still, small" in refusal(lambda: Movie(path))
    np.testing.assert_array_equal(read_all(write_images(tmp_path / "c.dm4", images[::-1])), PIXELS[:1])


def test_metadata_are_kept_as_json(tmp_path: Path) -> None:
    tags = {
        "Acquisition": {"Exposure (s)": np.float32(0.25), "Odd": np.float64("nan"), "Camera": "OneView µ"},
        "Long": np.zeros(5000, np.uint16),
    }
    about = DM.read(write_dm(tmp_path / "movie.dm4", PIXELS, tags=tags)).description
    kept = json.loads(json.dumps(about.metadata, allow_nan=False))
    assert kept["ImageList.2.ImageTags.Acquisition.Camera"] == "OneView µ"
    assert kept["ImageList.2.ImageTags.Acquisition.Exposure (s)"] == 0.25
    assert kept["ImageList.2.ImageTags.Acquisition.Odd"] == "nan"
    assert about.frame_time_s is None  # an exposure says nothing about it
    assert len(json.dumps(kept)) < 10_000


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("seconds", [0.0, 1.2345678, 86399.75])
def test_the_clock_is_found_as_ncempy_finds_it(tmp_path: Path, version: int, seconds: float) -> None:
    path = write_dm(tmp_path / "frame.dm", PIXELS[0], version, tags=taken_at(seconds))
    stack = DM.read(path)
    with dm.fileDM(path) as file:
        ticks = file.allTags[".ImageList.2.ImageTags.DataBar.Acquisition Time (OS)"]
    assert stack.clock_s == ticks * 1e-7
    assert stack.likeness is not None
    for place in stack.likeness.clock_at:
        assert stack.likeness.clock(path.read_bytes()[place]) == stack.clock_s


@pytest.mark.parametrize("name", REAL)
def test_what_describes_the_pixels_of_a_real_file_is_found_without_the_rest(shared: Path, name: str) -> None:
    """The pieces that other files are compared with hold type and sides, and no pixel."""
    path = shared / "data" / "formats" / name
    stack = DM.read(path)
    assert stack.likeness is not None
    pieces = b"".join(piece for _, piece in stack.likeness.decisive)
    for word in (b"Calibrations", b"DataType", b"Dimensions", b"PixelDepth"):
        assert pieces.count(word) == 1
    begin = stack.placement.offsets[0]
    end = begin + np.prod(stack.description.shape) * stack.placement.dtype.itemsize
    assert all(place + len(piece) <= begin or place >= end for place, piece in stack.likeness.decisive)
    content = path.read_bytes()
    assert all(content[place:].startswith(piece) for place, piece in stack.likeness.decisive)


# Damaged and hostile files


def test_refused_kinds(tmp_path: Path) -> None:
    for dtype in OTHER_TYPES:
        path = write_dm(tmp_path / "complex.dm4", PIXELS.astype(dtype))
        assert "complex numbers" in refusal(partial(Movie, path))
    line = write_dm(tmp_path / "line.dm4", PIXELS[0, 0])
    assert "1 dimensions" in refusal(lambda: Movie(line))
    spectra = write_dm(tmp_path / "spectra.dm4", PIXELS, tags={"Meta Data": {"Format": "Spectrum image"}})
    assert "spectra" in refusal(lambda: Movie(spectra))
    losses = write_dm(tmp_path / "losses.dm4", PIXELS, units=("nm", "nm", "eV"))
    assert "spectra" in refusal(lambda: Movie(losses))
    only = write_images(tmp_path / "only.dm4", [thumbnail(PIXELS)])
    assert "no image" in refusal(lambda: Movie(only))
    nothing = write_images(tmp_path / "nothing.dm4", [], thumbnails=0)
    assert "no image" in refusal(lambda: Movie(nothing))


def test_the_byte_order_of_old_macs(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "mac.dm3", PIXELS, 3)
    content = bytearray(path.read_bytes())
    content[8:12] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(OSError, match="Little Endian"):
        dm.fileDM(path)
    assert "byte order" in refusal(lambda: Movie(path))


@pytest.mark.parametrize("version", [3, 4])
def test_cut_off_anywhere(tmp_path: Path, version: int) -> None:
    content = write_dm(tmp_path / "movie.dm4", PIXELS, version).read_bytes()
    path = tmp_path / "cut.dm4"
    for length in [*range(0, 60, 3), *np.linspace(60, len(content) - 60, 60).astype(int)]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError) as raised:
            Movie(path)
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("sides", [(2**31, 2**31), (2**32 - 1, 2**32 - 1, 2**32 - 1), (0, 5, 5), (30, 20, 6)])
def test_sides_that_contradict_the_size_of_the_data(tmp_path: Path, sides: tuple[int, ...]) -> None:
    image = image_tags(PIXELS, "movie")
    image["ImageData"]["Dimensions"] = [np.uint32(side) for side in sides]
    path = write_images(tmp_path / "movie.dm4", [thumbnail(PIXELS), image])
    refusal(lambda: Movie(path))


# Directors, made after public descriptions


def director(folder: Path, frames: np.ndarray, pieces: list[int], **tags: Any) -> Path:
    """A recording whose raw files are cut after ``pieces`` bytes; the image is the first frame."""
    content = frames.tobytes()
    cuts = [0, *np.cumsum(pieces), len(content)]
    for i, (a, b) in enumerate(pairwise(cuts)):
        (folder / f"movie.raw{f'_{i}' if i else ''}").write_bytes(content[a:b])
    in_situ = {"Recorded": {"# Frames": np.uint32(len(frames))}} | tags
    return write_dm(folder / "movie.dm4", frames[0], scales=(0.1, 0.1), units=("nm", "nm"), tags={"In-situ": in_situ})


@pytest.mark.parametrize("pieces", [[], [1500, 1500, 1500], [3001], [1, 1199, 0, 600]])
def test_recordings_in_raw_files(tmp_path: Path, pieces: list[int]) -> None:
    path = director(tmp_path, PIXELS, pieces)
    np.testing.assert_array_equal(read_all(path), PIXELS)
    np.testing.assert_array_equal(read_all(tmp_path), PIXELS)  # the folder that holds nothing else
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.1, 0.1))
        assert sorted(movie.files) == sorted(tmp_path.iterdir())
        np.testing.assert_array_equal(movie.read(slice(1, 4), Area(slice(7, 19), slice(2, 9))), PIXELS[1:4, 7:19, 2:9])


def test_a_preview_of_another_size(tmp_path: Path) -> None:
    layout = {"Data Size (bytes)": np.uint32(2), "Dimensions": [np.uint32(30), np.uint32(20)]}
    path = director(tmp_path, PIXELS, [777], **{"Raw File Format Info": layout})
    preview = {"In-situ": {"Recorded": {"# Frames": np.uint32(5)}, "Raw File Format Info": layout}}
    write_dm(path, PIXELS[0, ::2, ::2].copy(), tags=preview)
    np.testing.assert_array_equal(read_all(path), PIXELS)
    write_dm(path, PIXELS[0, ::2, ::2].astype(np.float32), tags=preview)
    assert "type isn't known" in refusal(lambda: Movie(path))


def test_recordings_that_are_cut_off(tmp_path: Path) -> None:
    path = director(tmp_path, PIXELS, [1500])
    os.truncate(tmp_path / "movie.raw_1", 3 * 1200 - 1500 + 10)
    assert "--frames 0:3" in refusal(lambda: Movie(path))
    np.testing.assert_array_equal(read_all(path, frames=(0, 3, 1)), PIXELS[:3])


def test_recordings_with_a_missing_piece(tmp_path: Path) -> None:
    path = director(tmp_path, PIXELS, [1500, 1500, 1500])
    (tmp_path / "movie.raw_2").unlink()
    assert "movie.raw_2 is missing" in refusal(lambda: Movie(path))


@pytest.mark.parametrize("count", [2**32 - 1, 2**24])
def test_recordings_that_claim_too_much(tmp_path: Path, count: int) -> None:
    path = director(tmp_path, PIXELS, [], Recorded={"# Frames": np.uint32(count)})
    refusal(lambda: Movie(path))


def test_directors_without_raw_files(tmp_path: Path) -> None:
    path = director(tmp_path, PIXELS, [])
    (tmp_path / "movie.raw").unlink()
    assert "no movie.raw" in DM.read(path).description.notes[0]
    np.testing.assert_array_equal(read_all(path), PIXELS[:1])
    (tmp_path / "Hour_00").mkdir()
    assert "name the folder" in refusal(lambda: Movie(path))


# The command


def test_through_the_command(hrtemvae: Program, tmp_path: Path, shared: Path, tiny_model_path: Path) -> None:
    real = shared / "data" / "formats" / "dmTest_3D_int16_64,65,66.dm3"
    (tmp_path / "recording").mkdir()
    recorded = director(tmp_path / "recording", drifting_pixels(12, 70, 90), [9999])
    for path, shape in ((real, "66 frames of 65 x 64"), (recorded, "12 frames of 70 x 90")):
        done = hrtemvae("plan", path, "--model", tiny_model_path)
        assert done.code == 0, done.text
        assert shape in done.text, done.text
    assert_refused(hrtemvae("plan", recorded, "--dataset", "x", "--model", tiny_model_path), "--dataset", "DM")
    os.truncate(recorded, 2000)
    assert_refused(hrtemvae("plan", recorded, "--model", tiny_model_path), str(recorded), "copy it again")

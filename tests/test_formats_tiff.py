"""TIFF files of many programs, compared with tifffile and Pillow."""

import json
import os
import struct
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from commands import Outcome, Program, command_line, environment
from conftest import assert_refused, assert_same_maps
from hostile import refusal
from PIL import Image
from reading import assert_parts, assert_reads, look_at
from tiff_files import DECODED, GREY, PIXELS, WAYS, write

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.movie import Movie


@pytest.mark.parametrize("way", WAYS)
def test_uncompressed_frames_are_read_where_they_lie(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "movie.tif", **WAYS[way])
    assert_parts(path, tifffile.imread(path))
    assert_reads(path, PIXELS)
    with Movie(path) as movie:
        assert str(movie.storage) == "contiguous, not compressed"
        assert ("z" in "".join(movie.source.description.notes)) == ("slices" in way or "levels" in way)


@pytest.mark.parametrize("way", DECODED)
def test_other_frames_are_decoded(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "movie.tif", **DECODED[way])
    assert_parts(path, tifffile.imread(path))
    assert_reads(path, PIXELS)
    with Movie(path) as movie, ThreadPoolExecutor(4) as threads:
        assert "chunks of 1 x" in str(movie.storage)
        assert movie.decodes_in_parallel
        read = threads.map(lambda t: movie.read(slice(t % 5, t % 5 + 1), movie.area)[0], range(40))
        for t, image in enumerate(read):
            np.testing.assert_array_equal(image, PIXELS[t % 5])


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_types(tmp_path: Path, dtype: str, compression: str | None) -> None:
    assert_reads(write(tmp_path / "movie.tif", PIXELS.astype(dtype), compression=compression), PIXELS.astype(dtype))


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_adobe_deflate", "tiff_deflate"])
def test_files_of_pillow(tmp_path: Path, compression: str | None) -> None:
    pixels = (PIXELS >> 2).astype("u1")
    images = [Image.fromarray(image) for image in pixels]
    images[0].save(tmp_path / "movie.tif", save_all=True, append_images=images[1:], compression=compression)
    assert_parts(tmp_path / "movie.tif", pixels)


@pytest.mark.parametrize("way", [{"compression": "lzw"}, {"compression": "lzw", "predictor": True},
                                 {"compression": "zstd"}, {"compression": "lzma"},
                                 {"compression": "lzw", "tile": (16, 32)}])  # fmt: skip
def test_frames_that_another_library_decodes(tmp_path: Path, way: dict[str, Any]) -> None:
    path = write(tmp_path / "movie.tif", **way)
    assert_parts(path, PIXELS)
    assert_reads(path, PIXELS)


def test_jpeg_of_pillow(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(PIXELS[0].astype("u1")).save(path, compression="jpeg")
    assert_reads(path, np.asarray(Image.open(path))[None])


@pytest.mark.parametrize("compression", ["lzw", "lzma"])
def test_that_library_is_named_where_it_is_not_installed(tmp_path: Path, compression: str) -> None:
    write(tmp_path / "movie.tif", compression=compression)
    command = command_line(["plan", "movie.tif"], script="without_imagecodecs.py")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert_refused(Outcome(done.returncode, done.stderr), "movie.tif", "install the extra [formats]")


@pytest.mark.parametrize("ome", [True, False])
def test_metadata_are_kept(tmp_path: Path, ome: bool) -> None:
    text = {"axes": "TYX", "Name": "growth", "Info": "growth\nat 600 degrees"}
    with Movie(write(tmp_path / "movie.tif", ome=ome, imagej=not ome, metadata=text)) as movie:
        assert "growth" in json.dumps(movie.source.description.metadata, allow_nan=False)


def test_one_image(tmp_path: Path) -> None:
    assert_reads(write(tmp_path / "image.tif", PIXELS[0]), PIXELS[:1])


def test_imagej_stacks_of_more_than_4_gigabytes(tmp_path: Path) -> None:
    """One page, and the frames after it; the file has holes, and takes little of the disk."""
    frames, side = 1100, 1400
    path = tmp_path / "movie.tif"
    text = f"ImageJ=1.54\nimages={frames}\nframes={frames}\nfinterval=0.5\nunit=nm\n"
    tifffile.imwrite(
        path, PIXELS[0, :8, :8], metadata=None, description=text, resolution=(50, 50), imagej=False, **GREY
    )
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages.first
        begin = page.dataoffsets[0]
        for name, value in (("ImageWidth", side), ("ImageLength", side), ("RowsPerStrip", side),
                            ("StripByteCounts", 2 * side * side)):  # fmt: skip
            page.tags[name].overwrite(value)
    frame = 2 * side * side
    with path.open("r+b") as raw:
        for t in (0, frames - 1):
            raw.seek(begin + t * frame)
            raw.write(PIXELS[0].tobytes())
        os.truncate(path, begin + frames * frame)
    assert path.stat().st_size > 2**32
    with Movie(path) as movie, tifffile.TiffFile(path) as file:
        assert movie.shape == file.series[0].shape == (frames, side, side)
        assert movie.frame_time_s == 0.5
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.02))
        for t in (0, frames - 1):
            first_row = movie.read(slice(t, t + 1), Area.whole(1, side)).ravel()
            np.testing.assert_array_equal(first_row, PIXELS[0].ravel()[:side])
    os.truncate(path, begin + 7 * frame + 5)
    assert "--frames 0:7" in refusal(lambda: look_at(path))


@pytest.mark.parametrize(
    ("options", "size", "time"),
    [
        ({"imagej": True, "resolution": (50, 25), "metadata": {"unit": "nm", "finterval": 0.25}}, (0.04, 0.02), 0.25),
        ({"imagej": True, "resolution": (5e4, 5e4), "metadata": {"unit": "\\u00B5m"}}, (0.02, 0.02), None),
        ({"imagej": True, "resolution": (5e4, 5e4), "metadata": {"unit": "micron"}}, (0.02, 0.02), None),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "Angstrom"}}, (0.02, 0.02), None),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "1/nm"}}, None, None),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "pixel"}}, None, None),
        ({"imagej": True, "resolution": (72, 72), "resolutionunit": 2}, None, None),
        ({"resolution": (72, 72), "resolutionunit": 2}, None, None),
        ({"resolution": (118, 118), "resolutionunit": 3}, None, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 3e-5, "PhysicalSizeY": 2e-5}}, (0.02, 0.03), None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 0.02,
          "PhysicalSizeYUnit": "nm", "TimeIncrement": 250, "TimeIncrementUnit": "ms"}}, (0.02, 0.03), 0.25),
        ({"ome": True, "metadata": {"PhysicalSizeX": -1, "PhysicalSizeY": 0, "TimeIncrement": 0}}, None, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1}}, None, None),
    ],
)  # fmt: skip
def test_calibration(
    tmp_path: Path, options: dict[str, Any], size: tuple[float, float] | None, time: float | None
) -> None:
    options = {**options, "metadata": {"axes": "TYX", **options.get("metadata", {})}}
    with Movie(write(tmp_path / "movie.tif", **options)) as movie:
        assert movie.pixel_size_nm == (None if size is None else pytest.approx(size, rel=1e-5))
        assert movie.frame_time_s == (None if time is None else pytest.approx(time))
        json.dumps(movie.source.description.metadata, allow_nan=False)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 30, 30, 3), {"photometric": "rgb"}),
        ((5, 2, 30, 30), {"imagej": True, "metadata": {"axes": "TCYX"}}),
        ((5, 2, 30, 30), {"imagej": True, "metadata": {"axes": "TZYX"}}),
        ((2, 30, 30), {"imagej": True, "metadata": {"axes": "CYX"}}),
        ((5, 2, 30, 30), {"ome": True, "metadata": {"axes": "TCYX"}}),
        ((5, 2, 30, 30), {"ome": True, "metadata": {"axes": "TZYX"}}),
        ((5, 2, 30, 30), {}),
        ((5, 30, 30, 2), {"planarconfig": "contig", "extrasamples": ["unspecified"]}),
    ],
)
def test_channels_and_levels_are_refused(tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    pixels = np.zeros(shape, np.uint8)
    assert "save the movie alone" in refusal(lambda: look_at(write(tmp_path / "movie.tif", pixels, **options)))


def test_ome_pages_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "movie.ome.tif"
    with tifffile.TiffWriter(path, ome=False) as file:
        planes = "".join(f'<TiffData FirstT="{t}" IFD="{(t + 1) % 5}"/>' for t in range(5))
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint16" SizeX="60" SizeY="40" SizeC="1" SizeZ="1" SizeT="5">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        for image in PIXELS:
            file.write(image, metadata=None, description=text or None, **GREY)
            text = ""
    with tifffile.TiffFile(path) as file:
        assert [page.index for page in file.series[0].pages] == [1, 2, 3, 4, 0]
    assert "not in the order" in refusal(lambda: look_at(path))


def test_pages_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "movie.tif") as file:
        for pixels in (PIXELS[0], PIXELS[1], PIXELS[2, 1:]):
            file.write(pixels, metadata=None, **GREY)
    assert "page 2 holds 39 x 60 pixels" in refusal(lambda: look_at(tmp_path / "movie.tif"))


@pytest.mark.parametrize("dtype", ["c8", "?"])
def test_other_types_are_refused(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "movie.tif", PIXELS.astype(dtype))
    assert "pixels of type" in refusal(lambda: look_at(path))


def test_frames_in_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.ome.tif", ome=True, metadata={"axes": "TYX"})
    path.write_bytes(path.read_bytes().replace(b'SizeT="5"', b'SizeT="9"'))
    assert "holds 5 of 9 frames" in refusal(lambda: look_at(path))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_folders(tmp_path: Path, compression: str | None) -> None:
    for i in (1, 2, 3, 4, 5):
        write(tmp_path / f"frame {2 * i}.tif", PIXELS[i - 1], compression=compression)
    assert_parts(tmp_path, PIXELS)
    write(tmp_path / "frame 11.tif", PIXELS[0], compression="zlib" if compression is None else None)
    assert "frame 11.tif" in refusal(lambda: look_at(tmp_path))
    write(tmp_path / "frame 11.tif", PIXELS[0], compression=compression, rowsperstrip=3)
    if compression:
        assert "in different ways" in refusal(lambda: look_at(tmp_path))
    else:
        assert_reads(tmp_path, np.concatenate([PIXELS, PIXELS[:1]]))


def test_pages_in_a_circle(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.tif", metadata=None)
    with tifffile.TiffFile(path) as file:
        pages = [page.offset for page in file.pages]
    content = bytearray(path.read_bytes())
    tags = struct.unpack_from("<H", content, pages[-1])[0]
    struct.pack_into("<I", content, pages[-1] + 2 + 12 * tags, pages[1])
    path.write_bytes(content)
    assert "without end" in refusal(lambda: look_at(path))


def test_a_strip_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    pixels = np.zeros((1000, 1000), np.uint8)
    path = write(tmp_path / "movie.tif", pixels, compression="zlib", rowsperstrip=1000)
    packer = zlib.compressobj(1)
    first, second = (packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + 255 * second
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["StripOffsets"].overwrite(path.stat().st_size)
        file.pages.first.tags["StripByteCounts"].overwrite(len(bomb))
    with path.open("ab") as raw:
        raw.write(bomb)
    assert "can't be decoded" in refusal(lambda: look_at(path))


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    for name, options in (("plain", {}), ("deflated", DECODED["deflated"])):
        outcome = hrtemvae("plan", write(tmp_path / f"{name}.tif", **options), "--model", tiny_model_path)
        assert outcome.code == 0, outcome.text
        assert "TIFF" in outcome.text
    path = tmp_path / "plain.tif"
    path.write_bytes(path.read_bytes()[:9000])
    assert_refused(hrtemvae("plan", path, "--model", tiny_model_path), "copy it again")


def test_maps_are_those_of_the_same_frames_in_hdf5(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    with h5py.File(tmp_path / "hdf5.h5", "w") as file:
        file["m"] = PIXELS
    write(tmp_path / "deflated.tif", **DECODED["deflated tiles"])
    for name in ("hdf5.h5", "deflated.tif"):
        outcome = hrtemvae("analyze", tmp_path / name, "--model", tiny_model_path)
        assert outcome.code == 0, outcome.text
    assert_same_maps(tmp_path / "hdf5.maps.h5", tmp_path / "deflated.maps.h5")

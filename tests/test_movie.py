"""Finding and reading movies of every layout."""

import itertools
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from commands import command_line, environment
from conftest import drifting_pixels
from damage import break_chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection, PreprocessSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.calibration import convert, spacing
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preview import frames_to_show
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.movie.transform import UNCHANGED

PIXELS = drifting_pixels(6, 20, 30)


def read_all(path: Path, **section: object) -> np.ndarray:
    with Movie(path, MovieSection.model_validate(section)) as movie:
        return movie.read(slice(0, movie.shape[0]), movie.area)


# Layouts


def nexus(file: h5py.File) -> None:
    file.attrs["default"] = "scan"
    file.create_group("scan").attrs.update(NX_class="NXentry", default="images")
    group = file.create_group("scan/images")
    group.attrs.update(NX_class="NXdata", signal="counts", axes=["time", "y", "x"])
    group["counts"] = PIXELS
    group["thumbnails"] = PIXELS[:, ::2, ::2]
    for name, count, step, units in (("time", 6, 250.0, "ms"), ("y", 20, 0.2, "angstrom"), ("x", 30, 0.3, "Å")):
        group[name] = 5 + np.arange(count) * step
        group[name].attrs["units"] = units


def nexus_without_default(file: h5py.File) -> None:
    nexus(file)
    del file.attrs["default"], file["scan"].attrs["default"]
    file.create_group("scan/background").attrs.update(NX_class="NXcollection")
    file["scan/background/dark"] = PIXELS


def old_nexus(file: h5py.File) -> None:
    """The signal and the axes are marked themselves, not named by the group."""
    nexus_without_default(file)
    group = file["scan/images"]
    del group.attrs["signal"], group.attrs["axes"]
    group["counts"].attrs["signal"] = 1
    for number, name in enumerate(("time", "y", "x"), 1):
        group[name].attrs["axis"] = number


def old_nexus_with_axes_in_one_text(file: h5py.File) -> None:
    old_nexus(file)
    for name in ("time", "y", "x"):
        del file["scan/images"][name].attrs["axis"]
    file["scan/images/counts"].attrs.update(signal="1", axes="time:y:x")


def dm5(file: h5py.File) -> None:
    file["ImageList/[0]/ImageData/Data"] = np.zeros((8, 8, 4), np.uint8)[..., 0]  # a thumbnail
    file["ImageList/[1]/ImageData/Data"] = PIXELS
    for i, (scale, units) in enumerate(((0.03, "nm"), (0.02, "nm"), (0.25, "s"))):
        dimension = file.create_group(f"ImageList/[1]/ImageData/Calibrations/Dimension/[{i}]")
        dimension.attrs.update(Origin=np.float32(0), Scale=scale, Units=units)


def berkeley(file: h5py.File) -> None:
    group = file.create_group("data/movie")
    group.attrs["emd_group_type"] = 1
    group["data"] = PIXELS
    for i, (name, count, step, units) in enumerate(
        (("time", 6, 0.25, "[s]"), ("y", 20, 0.02, "[n_m]"), ("x", 30, 0.03, "[n_m]")), 1
    ):
        group[f"dim{i}"] = np.arange(count) * step
        group[f"dim{i}"].attrs.update(name=name, units=units)


def velox(file: h5py.File) -> None:
    group = file.create_group("Data/Image/abc123")
    group["Data"] = PIXELS.transpose(1, 2, 0)
    text = json.dumps(
        {
            "BinaryResult": {
                "PixelSize": {"width": "3e-11", "height": "2e-11"},
                "PixelUnitX": "m",
                "PixelUnitY": "m",
                "Detector": "BM-Ceta",
            },
            "Scan": {"ScanSize": {"width": "0", "height": "0"}},
            "Detectors": {"Detector-0": {"DetectorName": "BM-Ceta", "ExposureTime": "0.25"}},
        }
    ).encode()
    column = np.zeros(1000, np.uint8)
    column[: len(text)] = list(text)
    group["Metadata"] = np.repeat(column[:, None], 6, 1)


def hyperspy(file: h5py.File) -> None:
    group = file.create_group("Experiments/some movie")
    group["data"] = PIXELS
    for i, (name, scale, units) in enumerate((("time", 0.25, "s"), ("y", 2e-5, "µm"), ("x", 3e-5, "µm"))):
        group.create_group(f"axis-{i}").attrs.update(name=name, scale=scale, offset=0.0, units=units)
    file["Experiments/some movie/learning_results/factors"] = np.zeros((3, 3, 3))


def plain(file: h5py.File) -> None:
    file["somewhere/deep/stack"] = PIXELS
    file["somewhere/deep/stack"].attrs.update(pixel_size_nm=(0.02, 0.03), frame_time_s=0.25)
    file["somewhere/dark"] = PIXELS[0]


@pytest.mark.parametrize(
    "layout",
    [
        nexus,
        nexus_without_default,
        old_nexus,
        old_nexus_with_axes_in_one_text,
        berkeley,
        velox,
        hyperspy,
        dm5,
        plain,
    ],
)
def test_layout_is_found_with_its_calibration(tmp_path: Path, layout: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        layout(file)
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.03))
        assert movie.frame_time_s == pytest.approx(0.25)
        assert movie.full_shape == PIXELS.shape
    np.testing.assert_array_equal(read_all(path), PIXELS)


def test_shared_velox_and_hyperspy_files(shared: Path) -> None:
    with Movie(shared / "data" / "formats" / "fei_example_tem_stack.emd") as movie:
        assert movie.source.description.format == "EMD (Velox)"
        assert movie.shape == (2, 3, 3)
        assert movie.pixel_size_nm == pytest.approx((0.00817288, 0.00817288), rel=1e-5)
        assert movie.frame_time_s == pytest.approx(0.8)
    for name, words in (
        ("fei_example_complex_fft.emd", "no dataset of three dimensions"),
        ("example2_v3.1.hspy", "no dataset of three dimensions"),
        ("example_image.emd", "no dataset of three dimensions"),
    ):
        if name.startswith("fei_example_complex"):
            words = "holds compound values"
        with pytest.raises(InputError, match=words):
            Movie(shared / "data" / "formats" / name)


def test_real_movie(shared: Path) -> None:
    with Movie(shared / "data" / "movies" / "nist_cnt_growth.h5") as movie:
        assert movie.shape == (62, 455, 480)
        assert movie.source.description.format == "NeXus"
        assert movie.pixel_size_nm == pytest.approx((0.0532, 0.0532), rel=1e-3)
        assert movie.frame_time_s is None


def test_several_movies_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file["a/one"], file["b/two"] = PIXELS, PIXELS
    with pytest.raises(InputError, match=r"--dataset: /a/one, /b/two"):
        Movie(path)
    np.testing.assert_array_equal(read_all(path, dataset="/b/two"), PIXELS)
    np.testing.assert_array_equal(read_all(path, dataset="b/two"), PIXELS)
    with pytest.raises(InputError, match=r"no dataset 'b/three'.*It holds /a/one, /b/two"):
        Movie(path, MovieSection(dataset="b/three"))


@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("tyx")])
def test_axes_can_be_named(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        order = ["tyx".index(a) for a in axes]
        file.create_dataset("m", data=PIXELS.transpose(order), chunks=True)
    np.testing.assert_array_equal(read_all(path, axes=axes), PIXELS)


@settings(deadline=None)
@given(value=st.floats(1e-3, 1e3), units=st.sampled_from(["nm", "[n_m]", "Å", "A", "µm", "um", "m", "pm", "angstrom"]))
def test_lengths_become_nanometres(value: float, units: str) -> None:
    factor = {"nm": 1, "[n_m]": 1, "Å": 0.1, "A": 0.1, "µm": 1e3, "um": 1e3, "m": 1e9, "pm": 1e-3, "angstrom": 0.1}
    assert convert(value, units, "nm") == pytest.approx(value * factor[units])


@pytest.mark.parametrize("units", ["", "px", "1/nm", "s", "nonsense", "[]", "<undefined>", "%", "(", "nm)", "nm/0"])
def test_other_units_are_not_lengths(units: str) -> None:
    assert convert(1.0, units, "nm") is None


def test_uneven_positions_have_no_spacing() -> None:
    assert spacing(np.array([0.0, 1.0, 3.0])) is None
    assert spacing(np.array([0.0])) is None
    assert spacing(np.array([3.0, 2.0, 1.0])) == 1.0


TIMES = np.array([3.0, 4, 5.5, 8, 8.25, 9])


@pytest.mark.parametrize(
    ("layout", "name"),
    [(nexus, "scan/images/time"), (old_nexus, "scan/images/time"), (berkeley, "data/movie/dim1")],
)
def test_uneven_times(tmp_path: Path, layout: Callable[[h5py.File], None], name: str) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        layout(file)
        file[name][...] = TIMES * 1000
        file[name].attrs["units"] = "ms"
    with Movie(tmp_path / "movie.h5", MovieSection(frames=(1, 6, 2))) as movie:
        assert movie.frame_time_s is None
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.03))
        assert movie.source.description.times_s == pytest.approx(TIMES - 3)
        assert movie.times_s == pytest.approx([0, 4, 5])
    with Movie(tmp_path / "movie.h5", MovieSection(frame_time=0.5)) as movie:
        assert movie.times_s == pytest.approx(np.arange(6) * 0.5)


@pytest.mark.parametrize(
    ("times", "units"),
    [
        (TIMES, "nm"),
        (TIMES, ""),
        (TIMES[::-1], "s"),
        (np.r_[TIMES, 10], "s"),
        (TIMES[:5], "s"),
        (np.minimum(TIMES, 8), "s"),
        (np.where(TIMES == 9, np.inf, TIMES), "s"),
        (np.where(TIMES == 4, np.nan, TIMES), "s"),
        (np.where(TIMES == 9, 1e308, TIMES), "h"),
    ],
)
def test_times_that_make_no_sense(tmp_path: Path, times: np.ndarray, units: str) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        nexus(file)
        del file["scan/images/time"]
        file["scan/images/time"] = times
        file["scan/images/time"].attrs["units"] = units
    with Movie(tmp_path / "movie.h5") as movie:
        assert movie.times_s is None
        assert movie.frame_time_s is None
        np.testing.assert_array_equal(movie.read(slice(0, 6), movie.area), PIXELS)


# Types and storage

STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "by frame": {"chunks": (1, 20, 30)},
    "by space": {"chunks": (6, 8, 8)},
    "mixed": {"chunks": (4, 7, 16)},
    "gzip": {"chunks": (1, 20, 30), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (2, 10, 30), "compression": "lzf", "fletcher32": True},
    "blosc": {"chunks": (1, 20, 30), **hdf5plugin.Blosc()},
    "blosc2": {"chunks": (1, 20, 30), **hdf5plugin.Blosc2()},
    "bitshuffle": {"chunks": (1, 20, 30), **hdf5plugin.Bitshuffle()},
    "lz4": {"chunks": (1, 20, 30), **hdf5plugin.LZ4()},
    "zstd": {"chunks": (3, 20, 30), **hdf5plugin.Zstd()},
}


@pytest.mark.parametrize("storage", STORAGE)
def test_storage(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=PIXELS, **STORAGE[storage])
    np.testing.assert_array_equal(read_all(path), PIXELS)
    with Movie(path) as movie:
        expected = {"contiguous": "contiguous, not compressed", "gzip": "chunks of 1 x 20 x 30, shuffle + gzip"}
        if storage in expected:
            assert str(movie.storage) == expected[storage]
        assert ("chunks" in str(movie.storage)) == ("chunks" in STORAGE[storage])
        if "compression" in STORAGE[storage]:
            assert storage in str(movie.storage).lower()


@pytest.mark.parametrize("dtype", [f"{e}{t}" for e in "<>" for t in ("i1", "u2", "i2", "u4", "i8", "f2", "f4", "f8")])
def test_type_and_byte_order(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "movie.h5"
    pixels = (PIXELS % 100).astype(dtype)
    with h5py.File(path, "w") as file:
        file["m"] = pixels
    read = read_all(path)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, pixels)


def test_virtual_dataset_and_external_link(tmp_path: Path) -> None:
    sources = []
    for i in range(2):
        sources.append(tmp_path / f"part {i}.h5")
        with h5py.File(sources[-1], "w") as file:
            file.create_dataset("m", data=PIXELS[3 * i : 3 * i + 3], chunks=(1, 20, 30), compression="gzip")
    layout = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    for i, source in enumerate(sources):
        layout[3 * i : 3 * i + 3] = h5py.VirtualSource(source.name, "m", (3, 20, 30))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["far/away"] = h5py.ExternalLink("virtual.h5", "m")
    np.testing.assert_array_equal(read_all(tmp_path / "virtual.h5"), PIXELS)
    np.testing.assert_array_equal(read_all(tmp_path / "linked.h5"), PIXELS)
    with Movie(tmp_path / "virtual.h5") as movie:
        assert str(movie.storage) == "virtual, sources chunks of 1 x 20 x 30, gzip"
    frames = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    for i, pixels in enumerate(PIXELS):
        with h5py.File(tmp_path / f"frame {i}.h5", "w") as file:
            file.create_dataset("m", data=pixels, chunks=(10, 30), compression="gzip")
        frames[i] = h5py.VirtualSource(f"frame {i}.h5", "m", (20, 30))
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file.create_virtual_dataset("m", frames)
    np.testing.assert_array_equal(read_all(tmp_path / "frames.h5"), PIXELS)
    with Movie(tmp_path / "frames.h5") as movie:
        assert str(movie.storage) == "virtual, sources chunks of 1 x 10 x 30, gzip"
    sources[1].unlink()
    # HDF5 itself would read zeros where the source is missing.
    for name in ("virtual.h5", "linked.h5"):
        with pytest.raises(InputError, match=r"source .*/part 1\.h5 is missing"):
            Movie(tmp_path / name)


def test_a_movie_that_another_process_holds_open_is_read(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file["m"] = PIXELS
    command = command_line([path], script="hold_file.py")
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        np.testing.assert_array_equal(read_all(path), PIXELS)
        process.communicate(b"\n")


def test_reading_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file["m"] = PIXELS
    path.chmod(0o400)
    before = path.stat().st_mtime_ns, path.read_bytes()
    np.testing.assert_array_equal(read_all(path), PIXELS)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


@given(
    top=st.integers(0, 19), height=st.integers(1, 20), left=st.integers(0, 29), width=st.integers(1, 30),
    first=st.integers(0, 5), count=st.integers(1, 6), step=st.integers(1, 7), chunk=st.sampled_from([None, 1, 2, 4]),
)  # fmt: skip
def test_region_and_frames(
    tmp_path_factory: pytest.TempPathFactory,
    top: int,
    height: int,
    left: int,
    width: int,
    first: int,
    count: int,
    step: int,
    chunk: int | None,
) -> None:
    path = tmp_path_factory.mktemp("roi") / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=PIXELS, chunks=chunk and (chunk, 9, 11))
    bottom, right, last = min(20, top + height), min(30, left + width), min(6, first + count)
    roi, frames = f"{top}:{bottom},{left}:{right}", f"{first}:{last}:{step}"
    expected = PIXELS[first:last:step, top:bottom, left:right]
    np.testing.assert_array_equal(read_all(path, roi=roi, frames=frames), expected)
    with Movie(path, MovieSection.model_validate({"roi": roi, "frames": frames})) as movie:
        slabs = movie.chunk_grid.slabs(1, 1)
        joined = [movie.read(s, movie.area) for s in slabs]
        np.testing.assert_array_equal(np.concatenate(joined), expected)


# Tiles


@pytest.mark.parametrize("axes", ["tyx", "txy", "yxt"])
def test_decoded_bytes_are_those_that_are_read_where_there_are_no_chunks(tmp_path: Path, axes: str) -> None:
    def read_so_far() -> int:
        found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
        assert found
        return int(found[1])

    sizes = {"t": 40, "y": 500, "x": 700}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = np.zeros([sizes[a] for a in axes], "u2")
    with Movie(tmp_path / "m.h5", MovieSection(axes=axes)) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        before = read_so_far()
        decoded = reader.read(Area(slice(100, 400), slice(50, 350)), False).decoded_bytes
        assert decoded == pytest.approx(read_so_far() - before, rel=0.25)
        before = read_so_far()
        whole = TilePixels.of(np.empty(movie.shape, "u2"), movie.area, UNCHANGED)
        for region in movie.chunk_grid.regions(movie.area, 2**20, False):
            reader.fill(whole, region, False)
        assert read_so_far() - before == pytest.approx(40 * 500 * 700 * 2, rel=0.25)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("frames", [None, "1:6:2"])
def test_decoded_bytes_are_those_of_the_chunks_touched(tmp_path: Path, storage: str, frames: str | None) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("m", data=PIXELS, **STORAGE[storage])
        chunk = dataset.chunks or PIXELS.shape  # smaller than HDF5's buffer
    area, chosen = Area(slice(3, 9), slice(7, 25)), range(6)[1:6:2] if frames else range(6)
    touched = {
        (t // chunk[0], y // chunk[1], x // chunk[2])
        for t in chosen
        for y in range(area.rows.start, area.rows.stop)
        for x in range(area.columns.start, area.columns.stop)
    }
    expected = 0
    for place in touched:
        extent = [min(c, n - i * c) for i, c, n in zip(place, chunk, PIXELS.shape, strict=True)]
        expected += int(np.prod(extent)) * 2
    with Movie(path, MovieSection.model_validate({"frames": frames})) as movie:
        tile = TileReader(movie, PreprocessSection(), False).read(area, False)
    assert tile.decoded_bytes == expected
    np.testing.assert_array_equal(tile.pixels, PIXELS[chosen, area.rows, area.columns])


@pytest.mark.parametrize("chunk", [(1, 20, 30), (6, 10, 10)])
@pytest.mark.parametrize("damaged", [False, True])
def test_first_and_last_frame_that_can_be_decoded(tmp_path: Path, chunk: tuple[int, int, int], damaged: bool) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=PIXELS, chunks=chunk, compression="gzip")
    if damaged:
        break_chunk(path, "m", 0)
    with Movie(path) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        staged = reader.read(movie.area, skip_bad_frames=True)
        seen = [frames_to_show(movie, pixels) for pixels in (None, staged)]
    for images, binning, which in seen:
        assert binning == 1
        if damaged and chunk[0] == 6:
            assert np.isnan(images).all()
            continue
        assert which == tuple(range(int(damaged), 6))
        np.testing.assert_array_equal(images, PIXELS[list(which)])


def test_a_trial_counts_whole_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file.create_dataset("m", data=PIXELS, chunks=(6, 10, 10), compression="gzip")
    with Movie(tmp_path / "movie.h5") as movie:
        sample, decoded = TileReader(movie, PreprocessSection(), False).sample(Area.whole(12, 8), 2)
    np.testing.assert_array_equal(sample.array(), PIXELS[:2, :12, :8])
    assert decoded == 2 * 6 * 10 * 10 * PIXELS.itemsize


def test_frames_that_can_not_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=PIXELS, chunks=(2, 20, 15), compression="gzip")
    break_chunk(path, "m", 3)  # frames 2 and 3, right half
    middle, left = Area(slice(0, 20), slice(10, 20)), Area.whole(20, 15)
    with Movie(path) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        with pytest.raises(InputError, match=r"at frame 2, 3; .*--on-bad-frame skip"):
            reader.read(middle, False)
        tile = reader.read(middle, True)
        assert tile.bad_frames(middle) == [2, 3]
        assert tile.bad_frames(Area(slice(0, 20), slice(10, 15))) == []
        for t in range(6):
            expected = PIXELS[t, :, 10:20].copy()
            if tile.damaged[t]:
                assert tile.unreadable(t, middle).tolist() == [[False] * 5 + [True] * 5] * 20
                expected[:, 5:] = 0
            np.testing.assert_array_equal(tile.pixels[t], expected)
        assert not reader.read(left, True).damaged.any()
        filtered = TileReader(movie, PreprocessSection(clip_outliers=True), False).read(left, True)
        assert all(filtered.unreadable(t, left).all() for t in (2, 3))


def test_filters_keep_the_digits_of_32_bit_pixels(tmp_path: Path) -> None:
    pixels = PIXELS.astype("u4") % 100 + 2_000_000_000
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    with Movie(tmp_path / "m.h5") as movie:
        tile = TileReader(movie, PreprocessSection(clip_outliers=True), False).read(movie.area, False)
    np.testing.assert_array_equal(tile.pixels, pixels)


def test_a_damaged_chunk_is_tried_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=drifting_pixels(40, 40, 60), chunks=(20, 20, 30), compression="gzip")
    break_chunk(path, "m", 6)  # frames 20 and later, rows 20 and more, columns to 30
    with Movie(path) as movie:
        read, decoded = movie.read, []

        def counted(frames: slice, area: Area) -> np.ndarray:
            decoded.append(movie.chunk_grid.decoded_bytes(area, frames))
            return read(frames, area)

        monkeypatch.setattr(movie, "read", counted)
        tile = TileReader(movie, PreprocessSection(), False).read(movie.area, True)
        # Beside the slab and its two layers, each chunk of the damaged layer once.
        assert sum(decoded) == movie.chunk_grid.decoded_bytes(movie.area, slice(20, 40))
        decoded.clear()
        _, _, which = frames_to_show(movie, None)
        # Both at once, the first, backwards a frame of each layer, and what lies between.
        assert which == (0, *range(2, 16, 2), 19)
        assert sum(decoded) <= 6 * movie.chunk_grid.decoded_bytes(movie.area, slice(0, 20))
    assert tile.damaged.tolist() == [False] * 20 + [True] * 20
    lost = np.zeros((40, 40, 60), bool)
    lost[20:, 20:, :30] = True
    np.testing.assert_array_equal([tile.unreadable(t, movie.area) for t in range(40)], lost)
    np.testing.assert_array_equal(tile.pixels, np.where(lost, 0, drifting_pixels(40, 40, 60)))


@pytest.mark.parametrize(
    "metadata",
    [
        {"BinaryResult": {"PixelSize": None}},
        {"BinaryResult": {"PixelSize": {"width": "", "height": []}}, "Detectors": None},
        {"Scan": {"FrameTime": ""}},
        {"Scan": {"FrameTime": "-3"}},
        [],
    ],
)
def test_odd_metadata_calibrate_nothing(tmp_path: Path, metadata: object) -> None:
    with h5py.File(tmp_path / "m.emd", "w") as file:
        file["Data/Image/a/Data"] = PIXELS.transpose(1, 2, 0)
        file["Data/Image/a/Metadata"] = np.frombuffer(json.dumps(metadata).encode(), "u1")[:, None]
    with Movie(tmp_path / "m.emd") as movie:
        assert (movie.pixel_size_nm, movie.frame_time_s) == (None, None)
        assert movie.full_shape == PIXELS.shape


def test_defaults_that_run_in_a_circle(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["default"] = "a"
        file.create_group("a").attrs["default"] = "/"
        file["m"] = PIXELS
    np.testing.assert_array_equal(read_all(tmp_path / "m.h5"), PIXELS)


def test_named_axes_take_their_calibration_along(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        berkeley(file)
        for i, name in enumerate("abc", 1):
            file[f"data/movie/dim{i}"].attrs["name"] = name
    with Movie(path, MovieSection(axes="txy")) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.03, 0.02))
        assert movie.frame_time_s == pytest.approx(0.25)


def test_what_the_user_says_about_the_calibration_counts(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = np.zeros((9, 8, 8), np.uint8)
        file["m"].attrs.update(pixel_size_nm=0.02, frame_time_s=0.25)
    section = MovieSection(pixel_size=0.03, frame_time=0.5, frames=(0, 9, 2))
    with Movie(tmp_path / "m.h5", section) as movie:
        assert movie.pixel_size_nm == (0.03, 0.03)
        assert movie.frame_time_s == 1.0
        assert movie.times_s is not None
        assert movie.times_s.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [-1.0, 0.0, np.nan, np.inf])
def test_invalid_pixel_sizes(tmp_path: Path, size: float) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = PIXELS
        file["m"].attrs["pixel_size_nm"] = size
    with Movie(tmp_path / "m.h5") as movie:
        assert movie.pixel_size_nm is None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_structures_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        nexus(file)
    data = bytearray(path.read_bytes())
    start = int(np.random.default_rng(seed).integers(8, len(data)))
    data[start : start + 8 * 8 ** (seed % 3)] = bytes(8 * 8 ** (seed % 3))
    path.write_bytes(data[: path.stat().st_size])
    try:
        with Movie(path) as movie:
            movie.read(slice(0, movie.shape[0]), Area.whole(1, 1))
    except (InputError, OSError):
        pass  # refused, or a frame that can't be decoded


def test_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    for value in (PIXELS, PIXELS + 1):
        with h5py.File(path, "w") as file:
            file["m"] = value
        with Movie(path) as movie:
            first = movie.fingerprint
        with Movie(path) as movie:
            assert movie.fingerprint == first
    with h5py.File(path, "r+") as file:
        file["m"][0, 0, 0] = 7
    with Movie(path) as movie:
        assert movie.fingerprint != first

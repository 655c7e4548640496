"""Movies with false claims: each is refused in one sentence, in little time and memory."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, assert_same_maps, drifting_pixels
from hostile import refusal, within_budget

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 40, 40)
SHAPE = PIXELS.shape
SECRET = b"root:x:0:0:root:/root:/bin/bash\n" * 600


def look_at(path: Path, **section: object) -> None:
    """Do with a movie what every command does before computing, and read its pixels."""
    with Movie(path, MovieSection.model_validate(section)) as movie:
        try:
            movie.read(slice(0, movie.shape[0]), movie.area)
        except OSError as error:  # a frame that can't be decoded
            raise InputError(str(error)) from error


def plain(path: Path, name: str = "m", **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=PIXELS, **options)
    return path


def virtual(path: Path, source: Path, shape: tuple[int, ...] = SHAPE, frames: int = 5) -> Path:
    """A movie whose first ``frames`` are those of ``source``."""
    layout = h5py.VirtualLayout(shape, np.uint16)
    layout[:frames] = h5py.VirtualSource(str(source), "m", (frames, 40, 40))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("m", layout)
    return path


def numbered(path: Path, pattern: str) -> Path:
    space = h5py.h5s.create_simple(SHAPE, (h5py.h5s.UNLIMITED, *SHAPE[1:]))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), SHAPE, SHAPE)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_virtual(space, pattern.encode(), b"m", h5py.h5s.create_simple(SHAPE))
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"m", h5py.h5t.NATIVE_UINT16, space, layout)
    return path


# Pixels that are missing


def inner_file_gone(folder: Path) -> Path:
    inner = plain(folder / "inner.h5")
    outer = virtual(folder / "outer.h5", virtual(folder / "middle.h5", inner))
    inner.unlink()
    return outer


def numbered_file_gone(folder: Path) -> Path:
    for i in (0, 1, 3):
        plain(folder / f"block_{i}.h5")
    return numbered(folder / "movie.h5", "block_%b.h5")


def numbered_files_all_gone(folder: Path) -> Path:
    return numbered(folder / "movie.h5", "block_%b.h5")


def not_all_mapped(folder: Path) -> Path:
    return virtual(folder / "movie.h5", plain(folder / "a.h5"), shape=(10, 40, 40))


def in_circles(folder: Path) -> Path:
    return virtual(folder / "a.h5", virtual(folder / "b.h5", folder / "a.h5"))


def never_written(folder: Path, shape: tuple[int, ...] = SHAPE, **options: object) -> Path:
    with h5py.File(folder / "movie.h5", "w") as file:
        file.create_dataset("m", shape, np.uint16, **options)
    return folder / "movie.h5"


def ended_early(folder: Path) -> Path:
    with h5py.File(folder / "movie.h5", "w") as file:
        movie = file.create_dataset("m", (8, 40, 40), np.uint16, chunks=(1, 20, 40), compression="gzip")
        movie[:5] = PIXELS
    return folder / "movie.h5"


def source_ended_early(folder: Path) -> Path:
    return virtual(folder / "virtual.h5", ended_early(folder), (8, 40, 40), 8)


def raw(folder: Path, name: str, size: int = PIXELS.nbytes) -> Path:
    with h5py.File(folder / "movie.h5", "w") as file:
        file.create_dataset("m", SHAPE, np.uint16, external=[(name, 0, size)])
    return folder / "movie.h5"


def raw_cut_off(folder: Path) -> Path:
    (folder / "movie.raw").write_bytes(PIXELS.tobytes()[:-1])
    return raw(folder, "movie.raw")


def raw_too_few(folder: Path) -> Path:
    (folder / "movie.raw").write_bytes(PIXELS.tobytes())
    with h5py.File(folder / "movie.h5", "w") as file:
        file.create_dataset("m", SHAPE, np.uint16, external=[("movie.raw", 0, h5py.h5f.UNLIMITED)])
    (folder / "movie.raw").write_bytes(b"")
    return folder / "movie.h5"


def raw_elsewhere(folder: Path) -> Path:
    (folder / "secret").mkdir()
    (folder / "secret" / "passwd").write_bytes(SECRET)
    return raw(folder, str(folder / "secret" / "passwd"))


def raw_by_a_link(folder: Path) -> Path:
    raw_elsewhere(folder)
    (folder / "movie.raw").symlink_to(folder / "secret" / "passwd")
    return raw(folder, "movie.raw")


def raw_above(folder: Path) -> Path:
    """HDF5 reads deep/../secret.bin from where the link leads, not from beside the movie."""
    (folder / "real" / "deep").mkdir(parents=True)
    (folder / "real" / "secret.bin").write_bytes(SECRET)
    (folder / "secret.bin").write_bytes(SECRET)
    (folder / "deep").symlink_to("real/deep")
    return raw(folder, "deep/../secret.bin")


def mapped_twice(folder: Path) -> Path:
    plain(folder / "source.h5")
    layout = h5py.VirtualLayout((8, 40, 40), np.uint16)
    for first in (0, 1):
        layout[first : first + 4] = h5py.VirtualSource("source.h5", "m", SHAPE)[:4]
    with h5py.File(folder / "movie.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    return folder / "movie.h5"


def source_cut_off(folder: Path) -> Path:
    """The source once had 8 frames; now it has 5."""
    return virtual(folder / "virtual.h5", plain(folder / "source.h5", chunks=(1, 40, 40)), (8, 40, 40), 8)


def half_of_each_frame(folder: Path) -> Path:
    with h5py.File(folder / "block_0.h5", "w") as file:
        file["m"] = PIXELS[:, :, :20]
    space = h5py.h5s.create_simple(SHAPE, (h5py.h5s.UNLIMITED, *SHAPE[1:]))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), SHAPE, (5, 40, 20))
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_virtual(space, b"block_%b.h5", b"m", h5py.h5s.create_simple((5, 40, 20)))
    with h5py.File(folder / "movie.h5", "w") as file:
        h5py.h5d.create(file.id, b"m", h5py.h5t.NATIVE_UINT16, space, layout)
    return folder / "movie.h5"


MISSING = {
    "inner file gone": (inner_file_gone, "inner.h5 is missing"),
    "numbered file gone": (numbered_file_gone, "block_2.h5 is missing"),
    "numbered files all gone": (numbered_files_all_gone, "is empty"),
    "not all mapped": (not_all_mapped, "hold 50.0% of its pixels"),
    "in circles": (in_circles, "virtual dataset"),
    "mapped twice": (mapped_twice, "hold 62.5% of its pixels"),
    "source cut off": (source_cut_off, "has shape (5, 40, 40), less than a virtual dataset takes from it"),
    "half of each frame": (half_of_each_frame, "hold 50.0% of its pixels"),
    "raw file above": (raw_above, "secret.bin, which is not in the movie's folder"),
    "no chunk": (lambda f: never_written(f, chunks=(1, 40, 40)), "5 of its 5 chunks were never written"),
    "nothing contiguous": (never_written, "0 of its 16,000 bytes were written"),
    "ended early": (ended_early, "6 of its 16 chunks were never written"),
    "source ended early": (source_ended_early, "movie.h5, dataset m: 6 of its 16 chunks"),
    "raw file gone": (lambda f: raw(f, "gone.raw"), "gone.raw, which is missing"),
    "raw file cut off": (raw_cut_off, "movie.raw, which is cut off"),
    "raw file empty": (raw_too_few, "movie.raw, which is cut off"),
    "raw file elsewhere": (raw_elsewhere, "passwd, which is not in the movie's folder"),
    "raw file by a link": (raw_by_a_link, "passwd, which is not in the movie's folder"),
}


@pytest.mark.parametrize("what", MISSING)
def test_missing_pixels_are_not_zeros(tmp_path: Path, what: str) -> None:
    make, words = MISSING[what]
    path = make(tmp_path)
    assert words in refusal(lambda: look_at(path))


def test_the_existing_part_of_a_recording_that_ended_early_can_be_read(tmp_path: Path) -> None:
    for path in (ended_early(tmp_path), source_ended_early(tmp_path), source_cut_off(tmp_path)):
        with Movie(path, MovieSection(frames=(None, 5, None))) as movie:
            np.testing.assert_array_equal(movie.read(slice(0, 5), Area.whole(40, 40)), PIXELS)


def test_numbered_and_nested_sources_and_raw_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "movie.raw").write_bytes(PIXELS.tobytes())
    raw(tmp_path, "movie.raw").rename(tmp_path / "raw.h5")
    for i in range(2):
        plain(tmp_path / f"block_{i}.h5")
    paths = {
        numbered(tmp_path / "numbered.h5", "block_%b.h5"): 4,
        virtual(tmp_path / "outer.h5", virtual(tmp_path / "middle.h5", tmp_path / "block_0.h5")): 4,
        tmp_path / "raw.h5": 3,
    }
    monkeypatch.chdir("/")  # raw files are looked for beside the movie
    for path, count in paths.items():
        with Movie(path) as movie:
            np.testing.assert_array_equal(movie.read(slice(0, 5), Area.whole(40, 40)), PIXELS)
            files, fingerprint = movie.files, movie.fingerprint
        assert len(files) == count
        content, status = files[-1].read_bytes(), files[-1].stat()
        files[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(files[-1], ns=(status.st_atime_ns, status.st_mtime_ns))
        with Movie(path) as movie:
            assert movie.fingerprint != fingerprint
        files[-1].write_bytes(content)


def growing(folder: Path) -> Path:
    """Of one source without an end."""
    with h5py.File(folder / "source.h5", "w") as file:
        file.create_dataset("m", data=PIXELS, maxshape=(None, 40, 40), chunks=(1, 40, 40))
    layout = h5py.VirtualLayout(SHAPE, np.uint16, maxshape=(None, 40, 40))
    source = h5py.VirtualSource("source.h5", "m", SHAPE, maxshape=(None, 40, 40))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(folder / "growing.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    return folder / "growing.h5"


def numbered_folders(folder: Path) -> Path:
    (folder / "part0").mkdir()
    plain(folder / "part0" / "block.h5")
    return numbered(folder / "folders.h5", "part%b/block.h5")


def linked_from_afar(folder: Path) -> Path:
    (folder / "far").mkdir()
    plain(folder / "near.h5")
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    layout[:] = h5py.VirtualSource("near.h5", "m", SHAPE)
    with h5py.File(folder / "linked.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    (folder / "far" / "link.h5").symlink_to(folder / "linked.h5")
    return folder / "far" / "link.h5"


def interleaved(folder: Path) -> Path:
    for name, part in (("even", slice(0, 5, 2)), ("odd", slice(1, 5, 2))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["m"] = PIXELS[part]
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    layout[0:5:2] = h5py.VirtualSource("even.h5", "m", (3, 40, 40))
    layout[1:5:2] = h5py.VirtualSource("odd.h5", "m", (2, 40, 40))
    with h5py.File(folder / "interleaved.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    return folder / "interleaved.h5"


@pytest.mark.parametrize("make", [growing, numbered_folders, linked_from_afar, interleaved])
def test_virtual_movies_of_all_kinds_are_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with Movie(make(tmp_path)) as movie:
        np.testing.assert_array_equal(movie.read(slice(0, 5), Area.whole(40, 40)), PIXELS)


def test_a_movie_of_a_thousand_mappings_opens_quickly(tmp_path: Path) -> None:
    plain(tmp_path / "source.h5")
    layout = h5py.VirtualLayout((1000, 40, 40), np.uint16)
    for t in range(1000):
        layout[t] = h5py.VirtualSource("source.h5", "m", SHAPE)[t % 5]
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file.create_virtual_dataset("m", layout)

    def open_twice() -> None:
        for _ in range(2):
            with Movie(tmp_path / "movie.h5") as movie:
                assert len(movie.files) == 3

    assert within_budget(open_twice) is None


def test_movies_of_equal_size_and_date_are_distinguished(tmp_path: Path) -> None:
    found = set()
    for day in range(2):
        path = tmp_path / "movie.h5"
        with h5py.File(path, "w") as file:
            file["m"] = drifting_pixels(5, 40, 40, seed=day)
        os.utime(path, (1e9, 1e9))
        with Movie(path) as movie:
            found.add(movie.fingerprint)
    assert len(found) == 2


# Sizes


def bomb(folder: Path, chunk: tuple[int, ...], inflated: int, **options: object) -> Path:
    """A movie whose second chunk inflates to ``inflated`` bytes."""
    path = folder / "movie.h5"
    with h5py.File(path, "w") as file:
        movie = file.create_dataset("m", (3, *chunk[1:]), np.uint16, chunks=chunk, compression="gzip", **options)
        movie[...] = 1
        packing, more, block = zlib.compressobj(9), zlib.compressobj(9, wbits=-15), bytes(2**24)
        begin = packing.flush(zlib.Z_FULL_FLUSH)
        again = more.compress(block) + more.flush(zlib.Z_FULL_FLUSH)  # knows nothing of what comes before it
        movie.id.write_direct_chunk((1, 0, 0), begin + again * (inflated // len(block)) + bytes(4) * bool(options))
    return path


SIZES = {
    "a gzip bomb": lambda f: bomb(f, (1, 1500, 1500), 3 * 2**30),
    "a gzip bomb with checksums": lambda f: bomb(f, (1, 1500, 1500), 3 * 2**30, fletcher32=True),
    "a gzip bomb in small chunks": lambda f: bomb(f, (1, 20, 20), 2**30),
    "frames of a million by a million": lambda f: never_written(f, (3, 10**6, 10**6), chunks=(1, 1000, 1000)),
    "a width of 2^62": lambda f: never_written(f, (3, 1, 2**62), chunks=(1, 1, 64)),
    "2^62 contiguous": lambda f: never_written(f, (1, 1, 2**61)),
    "2^62 frames": lambda f: never_written(f, (2**62, 8, 8), chunks=(1, 8, 8)),
    "2^40 frames, virtual": lambda f: virtual(f / "v.h5", plain(f / "a.h5"), shape=(2**40, 40, 40)),
}


@pytest.mark.parametrize("what", SIZES)
def test_sizes_are_checked_before_memory_is_allocated(tmp_path: Path, what: str) -> None:
    path = SIZES[what](tmp_path)
    refusal(lambda: look_at(path))


# Names, units and metadata


def emd(path: Path, **dim: object) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("data/movie")
        group.attrs["emd_group_type"] = 1
        group["data"] = PIXELS
        for i, count in enumerate(SHAPE, 1):
            group[f"dim{i}"] = np.arange(count) * 0.5
            group[f"dim{i}"].attrs.update({"name": "xyt"[i - 1], "units": "nm", **dim})
    return path


def velox(path: Path, text: bytes) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("Data/Image/0")
        group["Data"] = PIXELS.transpose(1, 2, 0)
        group["Metadata"] = np.repeat(np.frombuffer(text, np.uint8)[:, None], 5, 1)
    return path


def nexus(path: Path, **attributes: object) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        group = file.create_group("entry")
        group.attrs.update({"default": ".", "signal": "m", "axes": ["t", "y", "x"], **attributes})
        group["m"] = PIXELS
        for name, count in zip("tyx", SHAPE, strict=True):
            group[name] = np.arange(count) * 0.5
            group[name].attrs["units"] = "nm"
    return path


def huge_axis(path: Path) -> Path:
    emd(path)
    with h5py.File(path, "r+") as file:
        del file["data/movie/dim2"]
        file.create_dataset("data/movie/dim2", (2**40,), np.float64, chunks=(1024,))
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    "a unit that never ends": lambda p: emd(p, units="nm*9**9**9**9"),
    "a unit in ten thousand brackets": lambda p: emd(p, units="(" * 10_000),
    "a unit that is a number": lambda p: emd(p, units=7.0),
    "a unit that is nothing": lambda p: emd(p, units=h5py.Empty("f")),
    "names that are lists": lambda p: emd(p, name=np.arange(3)),
    "an axis of 2^40": huge_axis,
    "a pixel of 1e308": lambda p: plain_with(p, pixel_size_nm=1e308),
    "a pixel of nan": lambda p: plain_with(p, pixel_size_nm=np.nan),
    "a frame of 1e-320 s": lambda p: plain_with(p, frame_time_s=1e-320),
    "a number of 400 digits": lambda p: velox(p, b'{"BinaryResult": {"PixelSize": {"width": 1' + b"0" * 400 + b"}}}"),
    "a number of 5,000 digits": lambda p: velox(p, b'{"BinaryResult": 1' + b"0" * 5000 + b"}"),
    "metadata 100,000 deep": lambda p: velox(p, b"[" * 100_000),
    "metadata that are a list": lambda p: velox(p, b"[1, 2]"),
    "metadata that are null": lambda p: velox(p, b'{"BinaryResult": null, "Detectors": [], "Scan": 3}'),
    "detectors of other types": lambda p: velox(p, json.dumps({"Detectors": {"a": None, "b": []}}).encode()),
    "axes that are numbers": lambda p: nexus(p, axes=np.arange(3)),
    "axes that are elsewhere": lambda p: nexus(p, axes=["/entry", "..", "\x1b[2J"]),
    "default that is a number": lambda p: nexus(p, default=3),
}  # fmt: skip


def plain_with(path: Path, **attributes: object) -> Path:
    plain(path)
    with h5py.File(path, "r+") as file:
        file["m"].attrs.update(attributes)
    return path


@pytest.mark.parametrize("what", ODD)
def test_odd_metadata_leave_a_movie_uncalibrated(tmp_path: Path, what: str) -> None:
    path = ODD[what](tmp_path / "movie.h5")

    def calibration() -> None:
        with Movie(path) as movie:
            known = *(movie.pixel_size_nm or ()), movie.frame_time_s
            assert not [k for k in known if k is not None and not 1e-15 <= k <= 1e15]
            assert movie.pixel_size_nm is None or "nm" not in what

    assert within_budget(calibration) is None
    assert within_budget(lambda: look_at(path)) is None


def signal_elsewhere(path: Path, signal: object) -> Path:
    nexus(path, signal=signal)
    return path


REFUSED: dict[str, Callable[[Path], Path]] = {
    "ten thousand movies": lambda p: many(p, 10_000, "movie {}"),
    "names of escapes": lambda p: many(p, 20, "\x1b[2J\rhrtemvae: result: fake{}\n"),
    "a name of bytes": lambda p: many(p, 2, "\udcff{}"),
    "thousands of EMD groups": lambda p: groups(p, 1000),
}


def many(path: Path, count: int, name: str) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        for i in range(count):
            file.create_dataset(name.format(i).encode("utf-8", "surrogateescape"), (3, 8, 8), np.uint8)
    return path


def groups(path: Path, count: int) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        for i in range(count):
            group = file.create_group(f"data/{i}")
            group.attrs["emd_group_type"] = 1
            group.create_dataset("data", (3, 8, 8), np.uint8)
            for axis in (1, 2, 3):
                group[f"dim{axis}"] = np.arange(3.0)
    return path


@pytest.mark.parametrize("what", REFUSED)
def test_at_most_a_few_names_are_listed_as_text(tmp_path: Path, what: str) -> None:
    path = REFUSED[what](tmp_path / "movie.h5")
    sentence = refusal(lambda: look_at(path))
    assert "--dataset" in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize("dtype", ["V5", "S3", "(2,)u2", "c8", h5py.string_dtype(), h5py.ref_dtype, "O", "M8"])
def test_pixels_of_other_types(tmp_path: Path, dtype: object) -> None:
    path = tmp_path / "movie.h5"
    kind = h5py.vlen_dtype(np.uint8) if dtype == "O" else np.dtype("i8") if dtype == "M8" else dtype
    with h5py.File(path, "w") as file:
        if dtype == "M8":
            file.create_dataset("m", (3, 20, 20), h5py.opaque_dtype(np.dtype("M8[s]")))
        else:
            file.create_dataset("m", (3, 20, 20), kind)
    refusal(lambda: look_at(path))


def test_through_the_command_line(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    """What a terminal would act on in names is shown escaped, and nothing is left behind."""
    work = tmp_path / "work"
    work.mkdir()
    escapes = REFUSED["names of escapes"](tmp_path / "escapes.h5")
    secret = raw_elsewhere(tmp_path)
    for path in (escapes, secret):
        for command in ("plan", "analyze"):
            outcome = hrtemvae(command, path, "--model", tiny_model_path, cwd=work)
            assert_refused(outcome, str(path))
            assert "\x1b" not in outcome.text
            assert "root:x" not in outcome.text
    assert list(work.iterdir()) == []


def test_a_virtual_movie_over_raw_files_is_analysed_from_anywhere(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path
) -> None:
    (tmp_path / "movie.raw").write_bytes(PIXELS.tobytes())
    outer = virtual(tmp_path / "outer.h5", raw(tmp_path, "movie.raw"))
    for path, result in ((outer, "a.h5"), (plain(tmp_path / "plain.h5"), "b.h5")):
        (tmp_path / "work").mkdir(exist_ok=True)
        done = hrtemvae("analyze", path, "--model", tiny_model_path, "-o", result, cwd=tmp_path / "work")
        assert done.code == 0, done.text
    assert_same_maps(tmp_path / "work" / "a.h5", tmp_path / "work" / "b.h5")

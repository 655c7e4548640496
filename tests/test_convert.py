"""Converted movies: their pixels, calibration and metadata, the same bytes on any ranks, and what is refused."""

import json
import shutil
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers blosc
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels
from silx.io.nxdata import get_default

from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(13, 150, 170)
CALIBRATED = ("--pixel-size", 0.02, "--frame-time", 0.5)


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "movie.npy", PIXELS)
    return tmp_path / "movie.npy"


def pixels_of(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        pixels: np.ndarray = file["entry/data/data"][...]
    return pixels


@pytest.mark.parametrize("compression", ["blosc-zstd", "blosc-lz4", "gzip", "none"])
def test_round_trip(hrtemvae: Program, tmp_path: Path, npy: Path, compression: str) -> None:
    made = hrtemvae(
        "convert", npy, "-o", "c.h5", "--compression", compression, *CALIBRATED, "--counts-per-electron", 124
    )
    assert made.code == 0, made.text
    np.testing.assert_array_equal(pixels_of(tmp_path / "c.h5"), PIXELS)
    with Movie(tmp_path / "c.h5") as movie:
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.02))
        assert movie.frame_time_s == pytest.approx(0.5)
        assert movie.storage.chunk == (8, 150, 170)
        np.testing.assert_array_equal(movie.read(slice(0, 13), movie.area), PIXELS)
    with h5py.File(tmp_path / "c.h5", "r") as file:
        assert file["entry/data/data"].attrs["counts_per_electron"] == 124
        process = {name: text.asstr()[()] for name, text in file["entry/process"].items()}
        assert process["program"] == "hrtemvae"
        assert json.loads(process["configuration"])["file"]["compression"] == compression
        assert "--counts-per-electron 124" in process["command_line"]
        assert json.loads(file["entry/source/files"].asstr()[()]) == [str(npy)]
        assert file["entry/source/format"].asstr()[()] == "NumPy"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.h5", "movie.npy"]
    verified = hrtemvae("verify", "c.h5")
    assert verified.code == 0, verified.text
    assert "all its 13 frames" in verified.text


def test_nexus_viewers_find_the_movie_and_its_axes(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    assert hrtemvae("convert", npy, "-o", "c.h5", *CALIBRATED, "--bin", 2, "--sum", 3).code == 0
    with h5py.File(tmp_path / "c.h5", "r") as file:
        shown = get_default(file)
        assert shown is not None
        assert shown.is_valid
        assert shown.signal.shape == (4, 75, 85)
        assert shown.axes_names == ["time (s)", "y (nm)", "x (nm)"]
        time, y, x = shown.axes
        np.testing.assert_allclose(time[:], np.arange(4) * 1.5)
        np.testing.assert_allclose(y[:], np.arange(75) * 0.04)
        assert (time.attrs["units"], x.attrs["units"]) == ("s", "nm")


def test_what_is_not_calibrated_stays_so(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    assert hrtemvae("convert", npy, "-o", "c.h5").code == 0
    with Movie(tmp_path / "c.h5") as movie:
        assert movie.pixel_size_nm is None
        assert movie.frame_time_s is None


def test_every_option_at_once(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    random = np.random.default_rng(1)
    dark, gain = random.normal(5, 1, (3, 150, 170)), random.normal(1, 0.1, (150, 170)).astype("f4")
    bad = np.zeros((150, 170), "u1")
    bad[20, 30] = bad[149, 169] = 1
    for name, image in (("dark", dark), ("gain", gain), ("bad", bad)):
        np.save(tmp_path / f"{name}.npy", image)
    made = hrtemvae(
        "convert", npy, "-o", "c.h5", "--dark", "dark.npy", "--gain", "gain.npy", "--bad-pixels", "bad.npy",
        "--roi", "10:150,20:170", "--frames", "1:13:2", "--bin", 3, "--sum", 4,
    )  # fmt: skip
    assert made.code == 0, made.text
    assert "left out: the last 2 frames" in made.text
    frames = (PIXELS[1:13:2].astype("f4") - dark.mean(0).astype("f4")) * gain
    frames = frames[:4, 10:150, 20:170]
    for image in frames:
        image[10, 10] = np.median(np.delete(image[9:12, 9:12].ravel(), 4))
        image[139, 149] = np.median(np.delete(image[138:, 148:].ravel(), 3))
    expected = frames[:, :138].reshape(4, 46, 3, 50, 3).sum((0, 2, 4), dtype=float)
    np.testing.assert_allclose(pixels_of(tmp_path / "c.h5")[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["2d.npy", "3d.npy", "2d.h5", "gzip.h5", "3d.h5"])
@pytest.mark.parametrize("boolean", [True, False])
def test_images_and_masks_correct(hrtemvae: Program, tmp_path: Path, npy: Path, name: str, boolean: bool) -> None:
    bad = np.zeros((150, 170), bool)
    bad[20, 30] = bad[21, 33] = True
    image = bad if boolean else bad * np.float32(-0.5)
    if name.startswith("3d"):
        image = np.stack([image, 0 * image]) if name.endswith("npy") else image[None].astype("f4")
    if name.endswith("npy"):
        np.save(tmp_path / name, image)
    else:
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("a/mask", data=image, compression="gzip" if name == "gzip.h5" else None)
            file["a/x"] = np.arange(170)
    made = hrtemvae("convert", npy, "-o", "c.h5", "--bad-pixels", name)
    assert made.code == 0, made.text
    expected = PIXELS.copy()
    for y, x in ((20, 30), (21, 33)):
        around = PIXELS[:, y - 1 : y + 2, x - 1 : x + 2].reshape(13, 9)
        expected[:, y, x] = np.rint(np.median(np.delete(around, 4, 1), 1))
    np.testing.assert_array_equal(pixels_of(tmp_path / "c.h5"), expected)


def test_images_that_are_not_the_only_one(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    for name, images in (
        ("two", {"dark": PIXELS[0], "gain": PIXELS[1]}),
        ("none", {"x": PIXELS[0, 0]}),
        ("complex", {"m": PIXELS[0] * 1j}),
        ("small", {"m": PIXELS[0, 1:]}),
        ("empty", {"m": PIXELS[0, :0]}),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for dataset, image in images.items():
                file[dataset] = image
    for words, expected in (
        (("--dark", "two.h5"), ("holds several images", "/dark, /gain")),
        (("--gain", "none.h5"), ("no dataset of three dimensions",)),
        (("--gain", "complex.h5"), ("complex.h5", "complex128")),
        (("--dark", "small.h5"), ("small.h5", "149 x 170", "--dark")),
        (("--dark", "empty.h5"), ("empty.h5",)),
    ):
        assert_refused(hrtemvae("convert", npy, "-o", "c.h5", *words), *expected)
    np.save(tmp_path / "cut.npy", np.ones((3, 150, 170), bool))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-10])
    assert_refused(hrtemvae("convert", npy, "-o", "c.h5", "--bad-pixels", "cut.npy"), "cut.npy", "cut off")


def test_any_ranks_and_threads_write_the_same_bytes(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    small = {"HRTEMVAE_BLOCK": "1"}
    for name, ranks, threads in (("a", None, 1), ("b", 1, 2), ("c", 2, 1), ("d", 3, 2)):
        made = hrtemvae(
            "convert", npy, "-o", f"{name}.h5", "--sum", 1, ranks=ranks, threads=threads, script="paced_conversion.py",
            variables=small,
        )  # fmt: skip
        assert made.code == 0, made.text
    first, *others = ((tmp_path / f"{name}.h5").read_bytes() for name in "abcd")
    assert all(other == first for other in others)


def test_what_is_refused(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    np.save(tmp_path / "small.npy", PIXELS[0, :100, :100])
    np.save(tmp_path / "all.npy", np.ones((150, 170), "u1"))
    for words, expected in (
        (("--dark", "small.npy"), ("small.npy", "100 x 100", "150 x 170", "--dark")),
        (("--bad-pixels", "all.npy"), ("all pixels are bad",)),
        (("--gain", "missing.npy"), ("missing.npy", "no such file")),
        (("--bin", 0), ("--bin",)),
        (("--bin", 200), ("--bin",)),
        (("--sum", 14), ("13 frames", "--sum")),
        (("--compression", "zip"), ("--compression",)),
        (("--counts-per-electron", -1), ("--counts-per-electron",)),
        (("--max-memory", "1MB"), ("--max-memory",)),
    ):
        assert_refused(hrtemvae("convert", npy, "-o", "c.h5", *words), *expected)
    assert_refused(hrtemvae("convert", npy, "-o", npy), "is itself one of the inputs")
    assert not (tmp_path / "c.h5").exists()
    assert not (tmp_path / "c.h5.parts").exists()


def test_a_movie_that_is_cut_off_is_refused(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    npy.write_bytes(npy.read_bytes()[:-1000])
    assert_refused(hrtemvae("convert", npy, "-o", "c.h5"), "cut off", "--frames")


def test_frames_that_can_not_be_decoded_are_named(hrtemvae: Program, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        movie = file.create_dataset("m", data=PIXELS, chunks=(1, 150, 170), compression="gzip")
        movie.id.write_direct_chunk((5, 0, 0), b"no chunk")
    assert_refused(hrtemvae("convert", "m.h5", "-o", "c.h5"), "frame 5", "--frames")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.h5"]


def test_an_existing_output(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    words = ("convert", npy, "-o", "c.h5")
    assert hrtemvae(*words).code == 0
    before = (tmp_path / "c.h5").stat().st_mtime_ns
    again = hrtemvae(*words)
    assert again.code == 0
    assert "already holds this movie" in again.text
    assert (tmp_path / "c.h5").stat().st_mtime_ns == before
    assert_refused(hrtemvae(*words, "--bin", 2), "holds something else", "--restart")
    assert hrtemvae(*words, "--bin", 2, "--restart").code == 0
    assert pixels_of(tmp_path / "c.h5").shape == (13, 75, 85)
    (tmp_path / "notes.h5").write_text("not of this program")
    assert_refused(hrtemvae("convert", npy, "-o", "notes.h5", "--restart"), "may only replace")


def test_verify_names_damaged_frames(hrtemvae: Program, tmp_path: Path, npy: Path) -> None:
    assert hrtemvae("convert", npy, "-o", "c.h5").code == 0
    shutil.copy(tmp_path / "c.h5", tmp_path / "changed.h5")
    with h5py.File(tmp_path / "changed.h5", "r+") as file:
        file["entry/data/data"][9, 3, 3] += 1
    assert_refused(hrtemvae("verify", "changed.h5"), "frame 9 is not as written")
    with h5py.File(tmp_path / "c.h5", "r") as file:
        place = file["entry/data/data"].id.get_chunk_info(0)
    content = bytearray((tmp_path / "c.h5").read_bytes())
    content[place.byte_offset + place.size // 2] ^= 1
    (tmp_path / "damaged.h5").write_bytes(content)
    assert_refused(hrtemvae("verify", "damaged.h5"), "not as written")
    made = hrtemvae("simulate", "--frames", 3, "--size", 192, 192, "-o", "s.h5")
    assert made.code == 0, made.text
    assert_refused(hrtemvae("verify", "s.h5"), "holds no digests")


def test_a_movie_without_digests_that_match_is_refused(tmp_path: Path, hrtemvae: Program, npy: Path) -> None:
    assert hrtemvae("convert", npy, "-o", "c.h5").code == 0
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        del file["entry/digests"]
        file["entry/digests"] = np.zeros((3, 16), "u1")
        file["entry/digests"].attrs["algorithm"] = "xxh3_128"
    assert_refused(hrtemvae("verify", "c.h5"), "13 frames, and digests of 3")


def test_the_plan_of_a_converted_movie_reads_every_chunk_once(hrtemvae: Program, tmp_path: Path) -> None:
    np.save(tmp_path / "movie.npy", drifting_pixels(9, 192, 256))
    assert hrtemvae("convert", "movie.npy", "-o", "c.h5", *CALIBRATED).code == 0
    plan = hrtemvae("plan", "c.h5", "--step", 32)
    assert plan.code == 0, plan.text
    assert "0.02 nm/pixel, 0.5 s/frame" in plan.text
    assert "read amplification 1.00" in plan.text

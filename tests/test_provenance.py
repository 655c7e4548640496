"""The origin of numbers is verified: a flipped bit, a movie that changes or another processor is noticed."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import Program, command_line, environment
from conftest import assert_refused, assert_same_maps, drifting_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.analysis.parts import Parts, TileMaps
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.segments.segment_file import SourceSegments, open_segments, write_segments
from hrtemvae_hpc.training.batches import Segments
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

TILE = Rectangle(0, 2, 0, 3)


def part_of(maps: np.ndarray) -> TileMaps:
    """A finished tile with these ``maps``."""
    return TileMaps(
        maps,
        valid_frames=np.full((2, 3), 7, np.int32),
        bad_frames=np.zeros(0, np.int64),
        reconstruction=np.ones((2, 3), np.float32),
        largest_rho=np.zeros(9, np.float32),
        series=np.zeros((1, 2, 5, 4), np.float16),
        series_windows=np.zeros((2, 1, 2), np.int32),
    )


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


# Parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = Parts(tmp_path / "o.h5", {"movie": 1}, {"device": "this"}, False)
    made.folder.mkdir()
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.integers(0))
def test_any_flipped_bit_in_a_part_is_found(parts: Parts, bit: int) -> None:
    maps = np.random.default_rng(0).normal(size=(4, 5, 2, 3)).astype(np.float32)
    parts.save(TILE, part_of(maps))
    found = parts.load(TILE)
    assert found is not None
    np.testing.assert_array_equal(found.maps, maps)
    (path,) = parts.folder.glob("*.safetensors")
    flip(path, bit)
    assert parts.load(TILE) is None


def test_a_part_of_another_analysis_or_tile_is_not_used(parts: Parts, tmp_path: Path) -> None:
    done = part_of(np.zeros((4, 5, 2, 3), np.float32))
    parts.save(TILE, done)
    other = Parts(tmp_path / "o.h5", {"movie": 2}, {"device": "this"}, False)
    shutil.copy(parts.folder / parts._name(TILE), parts.folder / other._name(TILE))
    assert other.load(TILE) is None
    assert parts.load(Rectangle(0, 3, 0, 2)) is None


def test_parts_under_swapped_names_are_not_used(parts: Parts) -> None:
    other = Rectangle(0, 2, 3, 6)
    for tile, value in ((TILE, 1.0), (other, 2.0)):
        maps = np.full((4, 5, 2, 3), value, np.float32)
        parts.save(tile, part_of(maps))
    one, two = parts.folder / parts._name(TILE), parts.folder / parts._name(other)
    one.rename(parts.folder / "aside")
    two.rename(one)
    (parts.folder / "aside").rename(two)
    assert parts.load(TILE) is parts.load(other) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.integers(0))
def test_any_flipped_bit_in_the_plan_of_parts_is_found(parts: Parts, bit: int) -> None:
    grid = WindowGrid(100, 100, 16, 8)
    (parts.folder / "plan.sealed").unlink(missing_ok=True)
    parts.start(Tiling(grid, 4, 1, 2), replaces=False)
    assert parts.known_tiling(grid) == Tiling(grid, 4, 1, 2)
    flip(parts.folder / "plan.sealed", bit)
    with pytest.raises(InputError, match="is damaged"):
        parts.known_tiling(grid)


def test_damaged_parts_are_computed_again(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "--step", 2]
    assert hrtemvae(*command, "-o", "maps.h5", "--keep-parts").code == 0
    shutil.copy(tmp_path / "maps.h5", tmp_path / "first.h5")
    (tmp_path / "maps.h5").unlink()
    saved = sorted((tmp_path / "maps.h5.parts").glob("*.safetensors"))
    flip(saved[0], 12_345_678)
    outcome = hrtemvae(*command, "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    assert_same_maps(tmp_path / "maps.h5", tmp_path / "first.h5")


# Arithmetic: PyTorch can be made to compute as on an older processor


OLDER = {"ATEN_CPU_CAPABILITY": "avx2" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "default"}


def test_parts_of_another_processor_are_not_mixed_in(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5"]
    assert hrtemvae(*command, "--keep-parts").code == 0
    (tmp_path / "maps.h5").unlink()
    refused = hrtemvae(*command, variables=OLDER)
    assert_refused(refused, "maps.h5.parts", "computed with device CPU", "start over with --restart")
    assert hrtemvae(*command, "--restart", variables=OLDER).code == 0
    again = hrtemvae(*command)
    assert again.code == 0, again.text
    assert "already holds this analysis, computed with device CPU" in again.text


def test_ranks_of_different_processors_are_refused(tmp_path: Path, movie_path: Path, tiny_model_path: Path) -> None:
    words = command_line(["analyze", movie_path, "--model", tiny_model_path])
    older = [f"{name}={value}" for name, value in OLDER.items()]
    done = subprocess.run(
        ["mpirun", "-n", "1", *words, ":", "-n", "1", "env", *older, *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "rank 1 on" in done.stderr
    assert "computes with device CPU" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tiles_are_computed_while_the_image_is_read(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    image = tmp_path / "image.sif"
    os.mkfifo(image)
    words = ("analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5")
    running = hrtemvae.start(*words, variables={"APPTAINER_CONTAINER": str(image)})
    running.wait_until(lambda: list(tmp_path.glob("maps.h5.parts/*.safetensors")))
    assert not (tmp_path / "maps.h5").exists()
    image.write_bytes(b"all of it")
    assert running.wait() == 0, running.text
    with h5py.File(tmp_path / "maps.h5") as file:
        process = file["entry/process"]
        assert process["image"].asstr()[()] == str(image)
        assert process["image_sha256"].asstr()[()] == hashlib.sha256(b"all of it").hexdigest()


# A movie that changes


def in_place(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for t, frame in enumerate(file["movie"][...][::-1]):
            file["movie"][t] = frame


def in_place_with_its_date(path: Path) -> None:
    status = path.stat()
    in_place(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_another(path: Path) -> None:
    other = path.with_name("other.h5")
    shutil.copy(path, other)
    in_place_with_its_date(other)
    other.replace(path)


@pytest.mark.parametrize("change", [in_place, in_place_with_its_date, by_another])
def test_a_movie_that_changes_while_it_is_read(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, change: Callable[[Path], None]
) -> None:
    movie = tmp_path / "movie.h5"
    with h5py.File(movie, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(12, 70, 90), chunks=(1, 70, 90))
    paced = {"HRTEMVAE_TILES": "1x1", "HRTEMVAE_PACE": "0.5"}
    words = ("analyze", movie, "--model", tiny_model_path, "-o", "maps.h5")
    run = hrtemvae.start(*words, script="paced.py", variables=paced)
    run.wait_until(lambda: len(list(tmp_path.glob("maps.h5.parts/*.safetensors"))) >= 2)
    change(movie)
    assert run.wait(60) == 2, run.text
    assert "movie.h5: changed while it was read" in run.text
    assert "Traceback" not in run.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "movie.h5"]


# Nothing to map


def test_a_movie_without_a_single_map_is_refused(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    for name, pixels in (("flat", np.ones((5, 40, 40), np.uint8)), ("nan", np.full((5, 40, 40), np.nan, np.float32))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["m"] = pixels
        outcome = hrtemvae("analyze", f"{name}.h5", "--model", tiny_model_path)
        assert_refused(outcome, f"{name}.h5, dataset /m: no window has maps")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flat.h5", "nan.h5"]


# Segments


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    count = 40
    columns = {
        "strength": random.random(count, np.float32),
        "period": random.random(count, np.float32),
        "frame": np.arange(count, dtype=np.int32),
        "place": np.zeros((count, 2), np.int32),
        "turned": np.zeros(count, np.float32),
        "validation": np.arange(count) >= 36,
    }
    pixels = random.integers(0, 65536, (count, 16, 16), np.uint16)
    path = tmp_path / "segments.h5"
    write_segments(path, 16, [SourceSegments("one", {"pixel_size_nm": 0.01}, pixels, columns)], count, {})
    return path


def stored_again(path: Path, dtype: str, **options: object) -> Path:
    """A copy whose pixels are stored in another way, as by h5repack and conversions."""
    target = path.with_name("copy.h5")
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        pixels = file["segments"][...]
        del file["segments"]
        file.create_dataset("segments", data=pixels.astype(dtype), **options)
    return target


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("<u2", {"chunks": (4, 16, 16), "compression": "gzip"}),
        (">u2", {}),
        (">u2", {"chunks": (4, 16, 16)}),
        ("<u2", {}),
    ],
)
def test_segments_stored_in_another_way_are_the_same(segments: Path, dtype: str, options: dict[str, object]) -> None:
    expected, found = open_segments(segments), open_segments(stored_again(segments, dtype, **options))
    np.testing.assert_array_equal(found.segments, expected.segments)
    assert found.sha256 == expected.sha256
    which = np.arange(40)
    one, other = (Segments([file.path], 16).load(which) for file in (expected, found))
    assert one.equal(other)
    assert one.max() > 0.9


def test_a_training_refuses_damaged_segments(hrtemvae: Program, segments: Path, tmp_path: Path) -> None:
    with h5py.File(segments, "r+") as file:
        offset = file["segments"].id.get_offset()
    flip(segments, 8 * (offset + 1000))
    (tmp_path / "train.yaml").write_text(
        "network: {window: 16, channels: [4], hidden: 8, latents: 3,\n"
        "  decoder: {base: 8, base_channels: 4, channels: [4]}}\n"
    )
    outcome = hrtemvae("train", "train.yaml", "--segments", "segments.h5")
    assert_refused(outcome, "segments.h5: its segments are not those that were written")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["segments.h5", "train.yaml"]


@pytest.mark.parametrize("dtype", ["<f4", "<i2", "<u4", "u1"])
def test_segments_of_another_type_are_refused(segments: Path, dtype: str) -> None:
    with pytest.raises(InputError, match=r"segments of type|has type"):
        open_segments(stored_again(segments, dtype))


def test_pixels_in_a_raw_file_are_refused(segments: Path) -> None:
    (segments.parent / "secret").write_bytes(bytes(40 * 16 * 16 * 2))
    with h5py.File(segments, "r+") as file:
        del file["segments"]
        file.create_dataset("segments", (40, 16, 16), "<u2", external=[(str(segments.parent / "secret"), 0, 20480)])
    with pytest.raises(InputError, match="lies in another file"):
        open_segments(segments)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.integers(0))
def test_a_flipped_bit_in_segments_is_found_or_changes_nothing(segments: Path, bit: int) -> None:
    expected = open_segments(segments)
    copy = Path(shutil.copy(segments, segments.with_name("flipped.h5")))
    flip(copy, bit)
    try:
        found = open_segments(copy)
    except InputError:
        return
    np.testing.assert_array_equal(found.segments, expected.segments)
    np.testing.assert_array_equal(found.validation, expected.validation)
    np.testing.assert_array_equal(found.period, expected.period)
    assert found.pixel_size_nm == expected.pixel_size_nm
    assert found.sha256 == expected.sha256
    assert (found.sources, found.options) == (expected.sources, expected.options)

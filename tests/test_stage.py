"""Staged movies: decoded once, by any number of ranks, and the same as read from the file."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import torch
from commands import Program, environment
from conftest import assert_same_maps, drifting_pixels, unavailable
from damage import break_chunk
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.analysis.compute import Means
from hrtemvae_hpc.analysis.stage import _our_names, open_stage, scratch_bytes
from hrtemvae_hpc.analysis.worker import Order, Task, Worker
from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection, PreprocessSection
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.process import start_ticks
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid

FRAMES, ROWS, COLUMNS = 12, 144, 125  # windows end at column 120
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "whole frames, gzip": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip", "shuffle": True},
    "whole frames, blosc": {"chunks": (1, ROWS, COLUMNS), **hdf5plugin.Blosc()},
    "spatial": {"chunks": (FRAMES, 16, 16), "compression": "gzip"},
    "mixed": {"chunks": (5, 40, 50), "compression": "lzf"},
}


def write(path: Path, storage: str) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(FRAMES, ROWS, COLUMNS), **STORAGE[storage])
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path, run_in: Callable[[Path], Program]) -> Path:
    """The maps by one rank, of a movie that isn't stored in chunks."""
    folder = tmp_path_factory.mktemp("alone")
    movie = write(folder / "m.h5", "contiguous")
    assert run_in(folder)("analyze", movie, "--model", tiny_model_path, "-o", "maps.h5").code == 0
    return folder / "maps.h5"


@pytest.mark.parametrize(
    ("storage", "ranks"),
    [
        ("contiguous", 2),
        ("whole frames, gzip", 4),
        ("whole frames, blosc", 2),
        ("spatial", 2),
        ("mixed", 4),
    ],
)
def test_ranks_decode_every_chunk_once(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, alone: Path, storage: str, ranks: int | None
) -> None:
    write(tmp_path / "m.h5", storage)
    before = set(os.listdir("/dev/shm"))
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "-o", "maps.h5", ranks=ranks)
    assert outcome.code == 0, outcome.text
    with h5py.File(tmp_path / "maps.h5") as file:
        process = file["entry/process"]
        assert 1 <= process["read_amplification"][()] <= 1.05
        # Each of several ranks has a tile, and most of them overlap.
        assert process["tiles"][()] >= (ranks or 1)
    with open_result(tmp_path / "maps.h5") as result:
        shown = drifting_pixels(FRAMES, ROWS, COLUMNS)[list(result.preview_frames)]
        np.testing.assert_array_equal(result.preview, shown)
    assert_same_maps(tmp_path / "maps.h5", alone)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("hrtemvae-")]


@pytest.mark.parametrize("own_scratch", [False, True])
def test_ranks_that_do_not_share_memory_stage_elsewhere_or_read(
    tmp_path: Path, tiny_model_path: Path, alone: Path, own_scratch: bool
) -> None:
    """Each with a /dev/shm of its own, and perhaps a scratch, as in separate containers."""
    write(tmp_path / "m.h5", "whole frames, gzip")
    (tmp_path / "scratch").mkdir()
    folders = [Path("/dev/shm"), *([tmp_path / "scratch"] if own_scratch else [])]
    mounts = " && ".join(f"mount -t tmpfs tmpfs {folder}" for folder in folders)
    command = ["mpirun", "-n", "2", "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
               f'{mounts} || exit 77; exec hrtemvae "$@"', "sh"]  # fmt: skip
    words = ("analyze", "m.h5", "--model", str(tiny_model_path), "-o", "maps.h5")
    env = environment() | {"OMPI_MCA_btl": "self,tcp", "HRTEMVAE_SCRATCH": str(tmp_path / "scratch")}
    done = subprocess.run(
        [*command, *words], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    if "unshare: " in done.stdout or done.returncode == 77:
        unavailable("this machine lets nobody mount a file system of their own", done.stdout)
    assert done.returncode == 0, done.stdout
    text = " ".join(done.stdout.split())
    assert f"each see their own {' and '.join(map(str, folders))}, as in separate containers" in text
    on_disk = not own_scratch and scratch_bytes() > 0
    assert ("staged on each node's scratch" in text) == on_disk
    assert "staged in" not in text
    assert_same_maps(tmp_path / "maps.h5", alone)


def test_remains_of_a_killed_stage_are_removed_by_the_next(tmp_path: Path, tiny_model: Model) -> None:
    gone = subprocess.Popen(["sleep", "60"])
    lost = tmp_path / f"{_our_names()}{gone.pid}-{start_ticks(gone.pid)}-{16 * '0'}"
    gone.kill()
    gone.wait()
    others = [
        tmp_path / f"{_our_names()}{os.getpid()}-{start_ticks(os.getpid())}-{16 * '1'}",
        tmp_path / f"hrtemvae-00000000-1-{gone.pid}-1-{16 * '2'}",  # of another host
        tmp_path / "hrtemvae-notes.txt",
    ]
    for path in (lost, *others):
        path.touch()
    path = tmp_path / "m.h5"
    write(path, "spatial")
    with Movie(path) as movie:
        open_stage(World(), TileReader(movie, PreprocessSection(), False), tmp_path)
    assert set(tmp_path.iterdir()) == {path, *others}


def test_previews_are_those_of_the_movie_also_where_nothing_is_left_to_stage(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path
) -> None:
    pixels = drifting_pixels(FRAMES, ROWS, ROWS)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("movie", data=pixels, chunks=(FRAMES, 48, 48), compression="gzip")
    for _ in range(2):
        words = ("analyze", "m.h5", "--model", tiny_model_path, "--step", 4, "-o", "maps.h5", "--keep-parts")
        outcome = hrtemvae(*words)
        assert outcome.code == 0, outcome.text
        assert "staged in each node's memory" in outcome.text
        with open_result(tmp_path / "maps.h5") as result:
            np.testing.assert_array_equal(result.preview, pixels[list(result.preview_frames)])
        (tmp_path / "maps.h5").unlink()


@given(
    top=st.integers(0, 60), height=st.integers(1, 40), left=st.integers(0, 80), width=st.integers(1, 50),
    first=st.integers(0, 8), step=st.integers(1, 3), most=st.integers(1, 40_000), whole=st.booleans(),
    storage=st.sampled_from(sorted(STORAGE)),
)  # fmt: skip
def test_regions_hold_every_pixel_and_share_no_chunk(
    tmp_path_factory: pytest.TempPathFactory,
    top: int,
    height: int,
    left: int,
    width: int,
    first: int,
    step: int,
    most: int,
    whole: bool,
    storage: str,
) -> None:
    path = write(tmp_path_factory.mktemp("regions") / "m.h5", storage)
    bottom, right = min(ROWS, top + height), min(COLUMNS, left + width)
    section = MovieSection.model_validate({"roi": f"{top}:{bottom},{left}:{right}", "frames": f"{first}::{step}"})
    with Movie(path, section) as movie:
        regions = movie.chunk_grid.regions(movie.area, most, whole)
        found = np.zeros(movie.shape, int)
        chunks: list[set[tuple[int, ...]]] = []
        for frames, (rows, columns) in regions:
            found[frames, rows, columns] += 1
            sizes = movie.storage.chunk or (1, 1, 1)
            axes: list[np.ndarray | range] = [
                movie.frame_indices[frames],
                range(top, bottom)[rows],
                range(left, right)[columns],
            ]
            places = [{i // size for i in axis} for axis, size in zip(axes, sizes, strict=True)]
            chunks.append({(t, y, x) for t in places[0] for y in places[1] for x in places[2]})
        assert (found == 1).all()
        assert len(set().union(*chunks)) == sum(map(len, chunks))
        decoded = sum(movie.chunk_grid.decoded_bytes(area, frames) for frames, area in regions)
        assert decoded == movie.chunk_grid.decoded_bytes(movie.area)


@pytest.mark.parametrize("preprocess", [PreprocessSection(), PreprocessSection(clip_outliers=True)])
@pytest.mark.parametrize("storage", STORAGE)
def test_staged_pixels_are_those_of_tiles(tmp_path: Path, storage: str, preprocess: PreprocessSection) -> None:
    with Movie(write(tmp_path / "m.h5", storage)) as movie:
        reader = TileReader(movie, preprocess, preprocess.clip_outliers)
        stage = open_stage(World(), reader, tmp_path).pixels
        assert list(tmp_path.iterdir()) == [tmp_path / "m.h5"]
        for region in reader.regions(movie.area):
            reader.fill(stage, region, False)
        area = Area(slice(8, 70), slice(30, 101))
        tile = reader.read(area, False)
        np.testing.assert_array_equal(stage.patch(area).array(), tile.patch(area).array())
        if preprocess.clip_outliers:
            np.testing.assert_array_equal(stage.frame_range, tile.frame_range)
        else:
            assert stage.frame_range is None
        assert stage.bad_frames(area) == []


def test_a_thread_begins_on_the_next_tile_before_the_last_one_is_done(
    tmp_path: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Movie(write(tmp_path / "m.h5", "mixed")) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        engine = Engine(tiny_model, torch.device("cpu"), "fp32", "window", 8)
        grid = WindowGrid(ROWS, COLUMNS, engine.window, 8)
        test = PermutationTest(Comparison.with_time(movie.shape[0]), engine.device)
        cells, stage = Cells(1, movie.shape[0]), open_stage(World(), reader, tmp_path)
        worker = Worker(Means(engine, reader, grid, test, cells, False, stage), 2)
        both = threading.Barrier(2, timeout=60)
        encode = engine.encode
        monkeypatch.setattr(engine, "encode", lambda *block: both.wait() >= 0 and encode(*block))
        tiling = Tiling(grid, engine.block, 1, 1)  # a tile has one block, which leaves the other thread without work
        for tile in (0, 1):
            worker.start(Order(Task.TILE, tile), tiling)
        found = [worker.poll(60), worker.poll(60)]
    assert [finished and finished.order.first for finished in found] == [0, 1]


def test_a_folder_in_memory_is_not_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRTEMVAE_SCRATCH", "/dev/shm")
    assert scratch_bytes() == 0
    (tmp_path / "link").symlink_to("/dev/shm")
    monkeypatch.setenv("HRTEMVAE_SCRATCH", str(tmp_path / "link"))
    assert scratch_bytes() == 0
    monkeypatch.setenv("HRTEMVAE_SCRATCH", str(Path(__file__).parent))
    assert scratch_bytes() > 0


def test_a_folder_that_can_not_hold_the_stage(tmp_path: Path) -> None:
    with Movie(write(tmp_path / "m.h5", "mixed")) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        with pytest.raises(RankFailed, match=r"can't be staged in .*gone \(No such file.*HRTEMVAE_SCRATCH"):
            open_stage(World(), reader, tmp_path / "gone")


def test_staged_frames_that_can_not_be_decoded(tmp_path: Path) -> None:
    break_chunk(write(tmp_path / "m.h5", "spatial"), "movie", 9)  # rows 16 to 32, columns 16 to 32
    with Movie(tmp_path / "m.h5") as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        stage = open_stage(World(), reader, tmp_path).pixels
        (region,) = reader.regions(movie.area)
        with pytest.raises(InputError, match=r"can't be decoded at frame 0, 1, 2"):
            reader.fill(stage, region, False)
        reader.fill(stage, region, True)
        corner = Area.whole(64, 64)
        assert stage.bad_frames(corner) == list(range(FRAMES))
        assert stage.bad_frames(Area(slice(32, 96), slice(0, 64))) == []
        expected = drifting_pixels(FRAMES, ROWS, COLUMNS)
        unreadable = stage.unreadable(3, corner)
        assert unreadable.sum() == 16 * 16
        assert unreadable[16:32, 16:32].all()
        got = stage.patch(movie.area).array()
        lost = stage.unreadable(3, movie.area)
        np.testing.assert_array_equal(got[3], np.where(lost, 0, expected[3]))

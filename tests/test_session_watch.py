"""A watched folder: movies are analysed when they are complete, and not touched before."""

import json
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from commands import Program, Running
from conftest import assert_refused, assert_same_maps, drifting_pixels

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.facility.movies import find_movies
from hrtemvae_hpc.facility.settled import Settled
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.opening import open_frames

SETTLE_S = 1.0
PIXELS = drifting_pixels(12, 40, 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "night"
    path.mkdir()
    return path


@pytest.fixture
def watch(hrtemvae: Program, folder: Path, tiny_model_path: Path) -> Running:
    words = ("session", "watch", "night", "--settle", SETTLE_S, "--model", tiny_model_path, "--drift", "none")
    running = hrtemvae.start(*words)
    running.wait_until(lambda: "watching night; results go to night.maps" in running.text)
    return running


def test_a_movie_is_analysed_when_it_has_stopped_growing(
    watch: Running, hrtemvae: Program, folder: Path, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    content = movie_path.read_bytes()
    for end in np.linspace(0, len(content), 8).astype(int)[1:]:  # never still for as long as a second
        (folder / "slow.h5").write_bytes(content[:end])
        time.sleep(0.25)
    watch.wait_until(lambda: "1 of 1: slow.h5\n  done" in watch.text, 60)
    for number, image in enumerate(PIXELS[:6]):
        (folder / "frames").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "frames" / f"f{number}.tif", image)
        time.sleep(0.3)
    watch.wait_until(lambda: "1 of 1: frames\n  done" in watch.text, 60)
    watch.send_signal(signal.SIGINT)
    assert watch.wait(20) == 0, watch.text
    assert "2 done" in watch.text
    assert "Traceback" not in watch.text
    for name in ("slow.h5", "frames"):
        alone = tmp_path / f"{name}.h5"
        words = ("--model", tiny_model_path, "--drift", "none")
        assert hrtemvae("analyze", folder / name, "-o", alone, *words).code == 0
        assert_same_maps(tmp_path / "night.maps" / f"{name}.maps.h5", alone)
    for record in (tmp_path / "night.maps" / "records").iterdir():
        assert len(json.loads(record.read_text())["attempts"]) == 1
    assert (tmp_path / "night.maps" / "session.html").exists()


def test_a_refused_movie_comes_again_when_it_changes(
    watch: Running, folder: Path, movie_path: Path, tmp_path: Path
) -> None:
    (folder / "m.h5").write_bytes(movie_path.read_bytes()[:2000])
    watch.wait_until(lambda: "failed: " in watch.text, 60)
    time.sleep(2 * SETTLE_S)
    assert watch.text.count("1 of 1") == 1
    shutil.copy(movie_path, folder / "m.h5")
    watch.wait_until(lambda: "1 of 1: m.h5\n  done" in watch.text, 60)
    watch.send_signal(signal.SIGTERM)
    assert watch.wait(20) == 0, watch.text
    assert (tmp_path / "night.maps" / "m.h5.maps.h5").exists()


def test_what_a_job_script_reads_of_a_watch(
    hrtemvae: Program, folder: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    for name in ("a.h5", "b\n0.h5"):
        shutil.copy(movie_path, folder / name)
    words = ("night", "--settle", 0.2, "--model", tiny_model_path)
    announcing = hrtemvae.start("session", "watch", *words, "--announce")
    announcing.wait_until(lambda: "0,1 2 new: a.h5, b\\n0.h5\n" in announcing.text)
    announcing.send_signal(signal.SIGTERM)
    assert announcing.wait(20) == 0
    shutil.copy(movie_path, folder / "still growing.h5")
    prepared = hrtemvae("session", "prepare", *words, "--only", "1")
    assert prepared.text.splitlines()[3:] == ["0 1"]


def test_a_file_settles_when_it_stays_the_same(folder: Path) -> None:
    settled = Settled(folder, 0.2)
    path = folder / "a"
    path.write_text("1")
    settled.look()
    assert not settled([path])
    time.sleep(0.25)
    settled.look()
    assert settled([path])
    assert settled([])
    for is_replaced in (False, True):
        if is_replaced:
            path.unlink()
        path.write_text("2")
        settled.look()
        assert not settled([path])
        time.sleep(0.25)
        assert not settled([path]), "nobody looked"
        settled.look()
        assert settled([path])
    assert not settled([path, folder / "none"])
    path.unlink()
    settled.look()
    assert not settled([path])


def test_files_that_are_not_ready_are_not_opened(
    folder: Path, movie_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(movie_path, folder / "ready.h5")
    shutil.copy(movie_path, folder / "growing.h5")
    np.save(folder / "growing.npy", PIXELS)
    for name, count in (("whole", 4), ("partly", 4)):
        (folder / name).mkdir()
        for number in range(count):
            tifffile.imwrite(folder / name / f"{number}.tif", PIXELS[number])

    def ready(files: Iterable[Path]) -> bool:
        return not any(path.stem == "growing" or path == folder / "partly" / "3.tif" for path in files)

    opened: list[Path] = []

    def noting(path: Path, section: MovieSection) -> FrameSource:
        opened.append(path)
        return open_frames(path, section)

    monkeypatch.setattr("hrtemvae_hpc.facility.movies.open_frames", noting)
    assert find_movies(folder, folder / "out", ready).names == ["ready.h5", "whole"]
    assert not any(path.stem == "growing" for path in opened)
    every = {"ready.h5", "growing.h5", "growing.npy", "whole", "partly"}
    assert set(find_movies(folder, folder / "out").names) == every


def test_bad_input(hrtemvae: Program, tmp_path: Path) -> None:
    assert_refused(hrtemvae("session", "watch", "nowhere"), "no such folder")
    assert not list(tmp_path.iterdir())

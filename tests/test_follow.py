"""Analyses of movies while they are recorded: what is kept, and the command as a user starts it."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from browser import started
from commands import Program, Running
from conftest import assert_refused, assert_same_maps, drifting_pixels
from hypothesis import given
from hypothesis import strategies as st
from recorder import recording

from hrtemvae_hpc.analysis.opened import fit, prepare
from hrtemvae_hpc.config import AnalysisConfig, DriftSection, EncodingSection, WindowsSection
from hrtemvae_hpc.live.bins import MOST, RECENT, TimeBins
from hrtemvae_hpc.live.drawing import Drawer
from hrtemvae_hpc.live.encoding import LiveEncoder, coarse
from hrtemvae_hpc.live.kept import EncodedFrame, KeptLatents
from hrtemvae_hpc.live.tracking import Tracker
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.model.model_file import Model, load_model, model_path
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.write import read_truth
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.simulation.movies import drift_path, simulate_movie
from hrtemvae_hpc.windows.grid import WindowGrid

PIXELS = drifting_pixels(40, 70, 90)
SHAPE = 2, 3, 4


def some_latents(frames: int, seed: int = 0) -> np.ndarray:
    """Latents [frames, rows, columns, latents] float32 of which some are not valid."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(frames, *SHAPE)).astype(np.float32)
    z[random.random((frames, *SHAPE[:2])) < 0.2] = np.nan
    return z


@given(st.integers(1, 3 * MOST))
def test_means_over_time_are_those_of_the_frames(frames: int) -> None:
    z, every = some_latents(frames), TimeBins(*SHAPE)
    for number, each in enumerate(z):
        every.add(10 + 3 * number, each)
    bins = every.whole
    means, valid = bins.means(slice(0, 2), slice(1, 3))
    assert bins.size == 2 ** max(0, int(np.ceil(np.log2(frames / MOST))))
    assert len(bins) == len(means) <= MOST
    for i, start in enumerate(range(0, frames, bins.size)):
        part = z[start : start + bins.size, :, 1:3].reshape(-1, 4, 4)
        known = np.isfinite(part).any((0, 2))
        np.testing.assert_array_equal(valid[i], known)
        np.testing.assert_allclose(means[i, known], np.nanmean(part[:, known], 0), atol=1e-5)
        assert bins.positions()[i] == pytest.approx(10 + 3 * np.mean(range(start, min(start + bins.size, frames))))


@given(st.integers(1, 8 * RECENT))
def test_means_of_the_last_frames(frames: int) -> None:
    z, every = some_latents(frames), TimeBins(*SHAPE)
    for number, each in enumerate(z):
        every.add(number, each)
    sizes = [2 * 2**n for n in range(9) if frames > 2 * 2**n * RECENT]
    held = [frames - size * -((size * RECENT - frames) // size) for size in sizes]  # without the oldest bins
    assert [bins.frames for bins in every.recent] == [each for each in held if each <= 0.75 * frames]
    for bins in every.recent:
        assert RECENT / 2 < len(bins) <= RECENT
        first = frames - bins.frames
        assert first % bins.size == 0
        assert bins.positions()[[0, -1]] == pytest.approx(
            [first + (bins.size - 1) / 2, np.mean(range((frames - 1) // bins.size * bins.size, frames))]
        )
        means, valid = bins.means(slice(0, 2), slice(0, 3))
        part = z[first : first + bins.size].reshape(-1, 6, 4)
        known = np.isfinite(part).any((0, 2))
        np.testing.assert_array_equal(valid[0], known)
        np.testing.assert_allclose(means[0, known], np.nanmean(part[:, known], 0), atol=1e-5)


class TestKeptLatents:
    FRAMES: ClassVar = [EncodedFrame(5 * i, (0.5 * i, -i), z) for i, z in enumerate(some_latents(6))]

    def test_they_are_read_again(self, tmp_path: Path) -> None:
        self.write(tmp_path / "latents.bin", self.FRAMES[:4])
        self.assert_holds(tmp_path / "latents.bin", 4)
        self.write(tmp_path / "latents.bin", self.FRAMES[4:])
        self.assert_holds(tmp_path / "latents.bin", 6)

    def test_others_are_not(self, tmp_path: Path) -> None:
        self.write(tmp_path / "latents.bin", self.FRAMES)
        self.assert_holds(tmp_path / "latents.bin", 0, "b" * 64)

    @pytest.mark.parametrize("lost", [1, 20, 200])
    def test_what_was_cut_off_is_left_out(self, tmp_path: Path, lost: int) -> None:
        path = tmp_path / "latents.bin"
        self.write(path, self.FRAMES)
        each = (path.stat().st_size - 64) // 6
        os.truncate(path, path.stat().st_size - lost)
        left = 6 - -(-lost // each)
        self.assert_holds(path, left)
        assert path.stat().st_size == 64 + left * each
        self.write(path, self.FRAMES[left:])
        self.assert_holds(path, 6)

    def test_what_was_not_written_to_disk_is_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "latents.bin"
        self.write(path, self.FRAMES)
        raw = bytearray(path.read_bytes())
        raw[-20:] = bytes(20)
        path.write_bytes(raw)
        self.assert_holds(path, 5)

    def write(self, path: Path, frames: list[EncodedFrame]) -> None:
        kept = KeptLatents(path, "a" * 64, SHAPE)
        list(kept.read())
        for each in frames:
            kept.add(each)
        kept.close()

    def assert_holds(self, path: Path, count: int, key: str = "a" * 64) -> None:
        kept = KeptLatents(path, key, SHAPE)
        found = list(kept.read())
        kept.close()
        assert len(found) == count
        for one, other in zip(found, self.FRAMES, strict=False):
            assert (one.frame, one.place) == (other.frame, other.place)
            np.testing.assert_allclose(one.z, other.z, rtol=1e-3)


def test_drift_is_followed_as_it_comes(tmp_path: Path) -> None:
    path = simulate_movie(tmp_path / "movie.h5", 150, 192, 224, 60.0, 0, 20.0)
    tracker, followed = Tracker(), []
    with Movie(path) as movie:
        for t, frame in enumerate(movie.read(slice(0, 150), movie.area)):
            if t == 100:  # another run goes on
                place, tracker = tracker.place, Tracker()
                tracker.resume(movie.read(slice(99, 100), movie.area)[0], place)
            tracker.follow(frame)
            followed.append([*tracker.place, *tracker.shift])
    off = np.array(followed) - np.tile(drift_path(150, 20.0, 0), 2)
    assert np.abs(off[:, :2]).max() < 1.0
    assert np.abs(off[:, 2:]).max() < 1.75


@given(st.integers(64, 5000), st.integers(64, 5000), st.integers(1, 64))
def test_the_grid_is_coarse_enough(height: int, width: int, step: int) -> None:
    config = AnalysisConfig(windows=WindowsSection(step=step))
    found = coarse(config, WindowGrid(height, width, 64, step)).windows.step
    grid = WindowGrid(height, width, 64, found)
    assert found % step == 0
    assert grid.rows * grid.columns <= 4096 * 1.2 + 2 * (grid.rows + grid.columns)
    finer = WindowGrid(height, width, 64, max(step, found - step))
    assert found == step or finer.rows * finer.columns > 4096 * 0.8 - 2 * (finer.rows + finer.columns)


def test_it_shows_where_something_happens_soon_after_it_begins(tmp_path: Path) -> None:
    """200 frames without a change, then 100 of a simulated movie of 300: 10 and 5 seconds at 20 frames a second."""
    path = simulate_movie(tmp_path / "movie.h5", 300, 192, 224, 60.0, 0)
    config = AnalysisConfig(
        windows=WindowsSection(step=16), encoding=EncodingSection(model="dense"), drift=DriftSection(correct="none")
    )
    with h5py.File(path, "r+") as file:
        data = file["entry/data/data"] if "entry/data/data" in file else file[_movie_in(file)]
        moving = data[:100]
        random = np.random.default_rng(0)
        data[:200] = random.poisson(np.mean(moving[:10], 0), (200, *moving.shape[1:]))
        data[200:] = moving
    world = World()
    model = load_model(model_path("dense"))
    with Movie(path) as movie, ThreadPoolExecutor(2) as pool:
        job = prepare(world, fit(movie, model, config))
        encoder = LiveEncoder(job, None, pool)
        bins = TimeBins(job.grid.rows, job.grid.columns, job.engine.latents)
        drawer = Drawer(encoder, tmp_path / "maps.h5", tmp_path / "maps.html", "a" * 64)
        for encoded in encoder.encode(movie.part(slice(0, 200))):
            bins.add(encoded.frame, encoded.z)
        assert drawer.draw(movie.part(slice(0, 200)), bins, 1.0) == []
        for encoded in encoder.encode(movie.part(slice(200, 300))):
            bins.add(encoded.frame, encoded.z)
        places = drawer.draw(movie, bins, 1.0)
    truth = read_truth(path, (192, 224))
    assert len(places) >= 3
    for place in places:
        top, left = round(place.y_px - 31.5), round(place.x_px - 31.5)
        assert not truth["still"][top : top + 64, left : left + 64].all()
    assert {place.first_frame for place in places} <= {1, 172}  # of the whole, or of the last 128 frames
    assert all(170 <= p.since_frame <= 270 for p in places)
    with open_result(tmp_path / "maps.h5") as result:
        assert result.process.recording == "300 of frames 0 to 299, each value the mean of 4"
    assert "Still being recorded: 300 of frames 0 to 299" in (tmp_path / "maps.html").read_text()


def _movie_in(file: h5py.File) -> str:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if getattr(item, "ndim", 0) == 3 else None)
    return names[0]


def test_the_page_updates_by_itself_unless_it_is_used(tmp_path: Path, tiny_model: Model) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["movie"] = PIXELS[:12]
    page, config = tmp_path / "maps.html", AnalysisConfig(drift=DriftSection(correct="none"))
    with Movie(tmp_path / "movie.h5") as movie, ThreadPoolExecutor(1) as pool:
        encoder = LiveEncoder(prepare(World(), fit(movie, tiny_model, config)), None, pool)
        bins = TimeBins(7, 10, encoder.job.engine.latents)
        for encoded in encoder.encode(movie):
            bins.add(encoded.frame, encoded.z)
        Drawer(encoder, tmp_path / "maps.h5", page, "a" * 64).draw(movie, bins, 1.0)
    first = page.read_text()
    with started(tmp_path) as browser:
        browser.show(page)
        assert "Still being recorded: 12 of frames 0 to 11." in browser.text(".warning")
        page.write_text(first.replace("12 of frames 0 to 11", "all of them"))
        browser.until(lambda: "all of them" in browser.text(".warning"))
        browser.find("#next").click()
        page.write_text(first)
        time.sleep(6)
        assert "all of them" in browser.text(".warning")
        assert browser.log() == []


@pytest.fixture
def words(tiny_model_path: Path) -> tuple[object, ...]:
    return "analyze", "live.h5", "--model", tiny_model_path, "-o", "maps.h5"


FOLLOW = ("--follow", "--every", "0.1", "--json")


def updates(running: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.text.splitlines() if line.startswith("{") and line.endswith("}")]


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_recording_is_followed_to_its_end(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...], tiny_model_path: Path, ranks: int | None
) -> None:
    running = hrtemvae.start(*words, *FOLLOW, ranks=ranks)
    running.wait_until(lambda: "waiting: live.h5: there is no such file" in running.text)
    with recording(tmp_path / "live.h5", PIXELS) as recorder:
        recorder.write(2)
        running.wait_until(lambda: "waiting for its first 4 frames" in running.text)
        for frames in (10, 10, 18):
            recorder.write(frames)
            drawn = len(updates(running))
            running.wait_until(lambda drawn=drawn: len(updates(running)) > drawn)  # type: ignore[misc]
            assert "Still being recorded" in (tmp_path / "maps.html").read_text()
        running.wait_until(lambda: updates(running)[-1]["frame"] == 38)  # the newest may be incomplete
        recorder.finish()
        assert running.wait() == 0, running.text
    *live, last = updates(running)
    assert [each["final"] for each in live] == [False] * len(live)
    assert 3 <= live[-1]["encoded"] <= 39
    assert len(live[-1]["drift_px"]) == 2
    assert all(0 <= each["delay_s"] < 60 for each in live)
    assert last["final"]
    assert last["frame"] == 39
    assert "Still being recorded" not in (tmp_path / "maps.html").read_text()
    assert not (tmp_path / "maps.h5.live").exists()
    alone = hrtemvae("analyze", "live.h5", "--model", tiny_model_path, "-o", "alone.h5")
    assert alone.code == 0, alone.text
    assert_same_maps(tmp_path / "maps.h5", tmp_path / "alone.h5")
    again = hrtemvae(*words, "--follow")
    assert "already holds this analysis" in again.text


def test_it_leaves_out_frames_to_keep_up(hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]) -> None:
    with recording(tmp_path / "live.h5", np.tile(PIXELS, (5, 1, 1))) as recorder:
        recorder.write(200)
        running = hrtemvae.start("analyze", "live.h5", *words[2:], "--follow", "--every", "0.2", "--json")
        running.wait_until(lambda: updates(running) and updates(running)[-1]["frame"] >= 190)
        first = updates(running)[0]
        assert first["step"] > 1
        assert first["encoded"] < first["frame"] / 2
        running.wait_until(lambda: f"one of {first['step']} to keep up" in running.text)


def test_what_is_given_without_a_recording_is_refused(hrtemvae: Program, words: tuple[object, ...]) -> None:
    assert_refused(hrtemvae(*words, "--every", "2"), "belong to --follow")
    assert_refused(hrtemvae(*words, "--json"), "belong to --follow")
    assert_refused(hrtemvae(*words, "--follow", "--settle", "0"), "between 0 and 86400")
    assert_refused(hrtemvae(*words, "--follow", "--drift", "drift.csv"), "--drift auto or none")


def test_a_movie_that_ends_as_no_movie_is_refused(hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]) -> None:
    (tmp_path / "live.h5").write_bytes(b"nothing" * 100)
    outcome = hrtemvae(*words, "--follow", "--settle", "0.5")
    assert_refused(outcome, "is not an HDF5 file")
    assert "waiting: live.h5: is not an HDF5 file" in outcome.text
    assert not (tmp_path / "maps.h5").exists()

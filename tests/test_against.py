"""rho with a log instead of time, and given what changed in the frames; logs that can't be used are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels, read_maps
from plain import plain_latents, plain_rho
from scipy import stats

from hrtemvae_hpc.analysis.against import read_against
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.movie.movie import Movie

FRAMES = 24
SHAPE = 40, 48


@pytest.fixture
def movie_file(tmp_path: Path) -> Path:
    brightness = np.linspace(1, 0.7, FRAMES) + 0.1 * np.random.default_rng(0).standard_normal(FRAMES)
    pixels = drifting_pixels(FRAMES, *SHAPE).astype(np.float32) * brightness[:, None, None]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    return tmp_path / "m.h5"


def write_log(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text)
    return path


def test_a_log_is_interpolated_to_the_frames_times(movie_file: Path) -> None:
    log = write_log(movie_file.parent, "value, note, time_s\n20,start,-1\n30,,4\n\n10,,20\n")
    with Movie(movie_file, MovieSection(frame_time=0.5, frames=(2, None, 3))) as movie:
        found = read_against(log, movie)
    np.testing.assert_allclose(found, [np.interp(t / 2, [-1, 4, 20], [20, 30, 10]) for t in range(2, FRAMES, 3)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its first line must name the columns time_s,value; time_s is missing"),
        ("time_s,temperature\n0,1\n9,2\n", "value is missing"),
        ("time_s,value\n", "has no rows"),
        ("time_s,value\n0,1\n9,hot\n", "row 2 must hold numbers for time_s,value, not 9,hot"),
        ("time_s,value\n0,1\n9\n", "row 2 must hold numbers"),
        ("time_s,value\n0,1\n99,nan\n", "row 2 must hold finite numbers"),
        ("time_s,value\n0,1\n5,2\n5,3\n", "time_s must grow from row to row, but doesn't at row 3"),
        ("time_s,value\n0,1\n9,2\n", "is a log of 0 to 9 s, but the frames were taken from 0 to 11.5 s"),
        ("time_s,value\n1,1\n99,2\n", "is a log of 1 to 99 s"),
        ("time_s,value\n0,5\n99,5\n", "its value is the same, 5, in all frames"),
        ('time_s,value\n0,"1\n9,2\n', "row 1 must hold numbers"),
    ],
)
def test_a_log_that_can_not_be_used_is_refused(movie_file: Path, text: str, words: str) -> None:
    log = write_log(movie_file.parent, text)
    with Movie(movie_file, MovieSection(frame_time=0.5)) as movie, pytest.raises(InputError) as refused:
        read_against(log, movie)
    assert words in str(refused.value)
    assert str(log) in str(refused.value)


def test_what_is_no_log_is_refused(movie_file: Path, tmp_path: Path) -> None:
    with Movie(movie_file, MovieSection(frame_time=0.5)) as movie:
        for path in (tmp_path / "missing.csv", tmp_path, movie_file):
            with pytest.raises(InputError, match="can't be read as a log"):
                read_against(path, movie)
    with Movie(movie_file) as movie, pytest.raises(InputError, match="--frame-time"):
        read_against(write_log(tmp_path, "time_s,value\n0,1\n99,2\n"), movie)


def test_rho_is_that_with_the_log(hrtemvae: Program, movie_file: Path, tiny_model_path: Path) -> None:
    folder = movie_file.parent
    write_log(folder, "time_s,value\n0,20\n6,80\n12,20\n")
    words = ["analyze", "m.h5", "--model", tiny_model_path, "--frame-time", 0.5, "--drift", "none"]
    assert_refused(hrtemvae(*words, "--against", "log.csv", "-o", "log.csv"), "log.csv")
    outcome = hrtemvae(*words, "--against", "log.csv")
    assert outcome.code == 0, outcome.text
    with h5py.File(movie_file) as file:
        z, _ = plain_latents(load_model(tiny_model_path), file["m"][...], 8)
    values = np.interp(np.arange(FRAMES) / 2, [0, 6, 12], [20, 80, 20])
    got = read_maps(folder / "m.maps.h5")
    expected = [[plain_rho(series, values) for series in window.T] for window in z.swapaxes(0, 1)]
    np.testing.assert_allclose(got["spearman"].reshape(5, -1).T, expected, atol=1e-6)
    with h5py.File(folder / "m.maps.h5") as file:
        assert file["entry/spearman/title"].asstr()[()] == "Spearman's rho with the values of log.csv"
    assert_refused(hrtemvae(*words), "holds something else")


def test_time_that_brightness_explains_is_refused(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    pixels = drifting_pixels(FRAMES, *SHAPE) * np.linspace(1, 0.2, FRAMES)[:, None, None]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "--partial", ranks=2)
    assert_refused(outcome, "explain the order of the frames entirely", "--partial")
    assert [path.name for path in tmp_path.iterdir()] == ["m.h5"]


def test_rho_given_drift_brightness_and_contrast(hrtemvae: Program, movie_file: Path, tiny_model_path: Path) -> None:
    folder = movie_file.parent
    words = ["analyze", "m.h5", "--model", tiny_model_path, "--partial"]
    assert_refused(hrtemvae(*words, "--drift", "none"), "--partial needs drift")
    outcome = hrtemvae(*words)
    assert outcome.code == 0, outcome.text
    with h5py.File(movie_file) as file:
        z, _ = plain_latents(load_model(tiny_model_path), file["m"][...], 8)
    with h5py.File(folder / "m.maps.h5") as file:
        curves = {name: values[...] for name, values in file["entry/drift"].items() if values.ndim}
        assert file["entry/spearman/title"].asstr()[()].endswith("given drift, brightness and contrast")
    assert not curves["applied_dy"].any()
    got = read_maps(folder / "m.maps.h5")["spearman"].reshape(5, -1)
    others = [np.ones(FRAMES), *(stats.rankdata(curves[name]) for name in ("dy", "dx", "mean", "contrast"))]
    for w in range(got.shape[1]):
        for k in range(5):
            one, other = (
                r - np.stack(others, 1) @ np.linalg.lstsq(np.stack(others, 1), r)[0]
                for r in (stats.rankdata(z[:, w, k]), np.arange(FRAMES))
            )
            assert got[k, w] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-5)

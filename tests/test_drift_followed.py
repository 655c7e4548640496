"""Analyses that follow a drift: against the same scene without it, and through every way of reading."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, assert_same_maps, drifting_pixels, read_maps

from hrtemvae_hpc.simulation.movies import simulate_movie

FRAMES, ROWS, COLUMNS = 9, 70, 90
MOVES = [(0, 0), (1, -2), (2, -3), (4, -3), (5, -5), (7, -6), (6, -8), (9, -9), (11, -9)]  # pixels down, right


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """More than a frame shows, so that nothing new comes in blank."""
    return drifting_pixels(FRAMES, ROWS + 30, COLUMNS + 30)


def seen(scene: np.ndarray, moves: list[tuple[int, int]]) -> np.ndarray:
    """The frames that show the scene shifted by ``moves``."""
    return np.stack([image[15 - dy : 15 - dy + ROWS, 15 - dx : 15 - dx + COLUMNS] for image, (dy, dx) in
                     zip(scene, moves, strict=True)])  # fmt: skip


def write_table(path: Path, moves: Sequence[tuple[float, float]]) -> None:
    lines = [f"{t},,{dy},{dx},1" for t, (dy, dx) in enumerate(moves)]
    path.write_text("\n".join(["frame,time_s,dy_px,dx_px,quality", *lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("followed")
    still, moved = seen(scene, [(0, 0)] * FRAMES), seen(scene, MOVES)
    with h5py.File(folder / "still.h5", "w") as file:
        file["m"] = still
    storages: dict[str, dict[str, Any]] = {
        "contiguous": {},
        "frames": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip"},
        "deep": {"chunks": (4, 16, 16), "compression": "lzf"},
    }
    for name, storage in storages.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("m", data=moved, **storage)
    np.save(folder / "numpy.npy", moved)
    write_table(folder / "drift.csv", [(dy + 0.3, dx - 0.4) for dy, dx in MOVES])
    return folder


@pytest.fixture(scope="module")
def still(folder: Path, tiny_model_path: Path, run_in: Callable[[Path], Program]) -> Path:
    words = ("analyze", "still.h5", "--model", tiny_model_path, "--step", 5, "--drift", "none", "-o", "still.maps.h5")
    assert run_in(folder)(*words).code == 0
    return folder / "still.maps.h5"


@pytest.fixture(scope="module")
def calm(folder: Path) -> Path:
    """A simulated movie that doesn't drift."""
    return simulate_movie(folder / "calm.h5", 10, 192, 224, 60.0, 0)


def expected_frames() -> np.ndarray:
    """In how many frames each window of 16 pixels, 5 apart, lies within the frame."""
    rows, columns = np.arange(0, ROWS - 15, 5), np.arange(0, COLUMNS - 15, 5)
    count = np.zeros((len(rows), len(columns)), int)
    for dy, dx in MOVES:
        inside = (rows + dy >= 0) & (rows + 16 + dy <= ROWS)
        across = (columns + dx >= 0) & (columns + 16 + dx <= COLUMNS)
        count += inside[:, None] & across
    return count


@pytest.mark.parametrize(
    ("movie", "ranks", "script"),
    [("contiguous.h5", None, ""), ("frames.h5", None, "paced.py"), ("deep.h5", 2, "paced.py"),
     ("numpy.npy", None, "paced.py")],
)  # fmt: skip
def test_maps_are_those_of_the_still_scene(
    hrtemvae: Program, tmp_path: Path, folder: Path, still: Path, tiny_model_path: Path, movie: str,
    ranks: int | None, script: str,
) -> None:  # fmt: skip
    words = ("--model", tiny_model_path, "--step", 5, "--drift", folder / "drift.csv", "-o", "maps.h5")
    variables = {"HRTEMVAE_TILES": "1x1"} if script else None
    outcome = hrtemvae("analyze", folder / movie, *words, ranks=ranks, script=script, variables=variables)
    assert outcome.code == 0, outcome.text
    assert "corrected by whole pixels as" in outcome.text
    got, expected = read_maps(tmp_path / "maps.h5"), read_maps(still)
    np.testing.assert_array_equal(got["valid_frames"], expected_frames())
    always = got["valid_frames"] == FRAMES
    assert 0 < always.sum() < always.size
    of_all_windows = {"significance/data", "significance/largest_rho", "reproducibility/correlation"}
    for name in expected.keys() - of_all_windows:
        # Sums over a block in which some windows lack frames may differ in their last digits.
        np.testing.assert_allclose(got[name][..., always], expected[name][..., always], 1e-5, 1e-7, err_msg=name)
    with h5py.File(tmp_path / "maps.h5") as file:
        drift = file["entry/drift"]
        assert list(zip(drift["applied_dy"], drift["applied_dx"], strict=True)) == MOVES
        np.testing.assert_allclose(drift["dy"], [dy + 0.3 for dy, _ in MOVES])


def test_a_region_is_followed_beyond_its_borders(
    hrtemvae: Program, tmp_path: Path, folder: Path, tiny_model_path: Path
) -> None:
    words = ("--model", tiny_model_path, "--step", 5, "--roi", "20:50,30:70")
    table = folder / "drift.csv"
    assert hrtemvae("analyze", folder / "deep.h5", *words, "--drift", table, "-o", "followed.h5").code == 0
    assert hrtemvae("analyze", folder / "still.h5", *words, "--drift", "none", "-o", "still.h5").code == 0
    assert_same_maps(tmp_path / "followed.h5", tmp_path / "still.h5")


def test_a_drift_that_is_measured_is_followed(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    hrtemvae("simulate", "--frames", 10, "--size", 192, 224, "--drift", 8, "-o", "m.h5")
    words = ("analyze", "m.h5", "--model", tiny_model_path, "--step", 16)
    alone, two = hrtemvae(*words, "-o", "alone.h5"), hrtemvae(*words, "-o", "two.h5", ranks=2)
    assert alone.code == two.code == 0, alone.text + two.text
    assert "corrected by whole pixels" in alone.text
    assert_same_maps(tmp_path / "alone.h5", tmp_path / "two.h5")
    with h5py.File(tmp_path / "alone.h5") as one, h5py.File(tmp_path / "two.h5") as other:
        truth = h5py.File(tmp_path / "m.h5")["entry/truth/drift_px"][...]
        for name in ("dy", "dx", "quality", "mean", "contrast", "focus", "applied_dy", "applied_dx"):
            np.testing.assert_array_equal(one[f"entry/drift/{name}"], other[f"entry/drift/{name}"])
        found = np.stack([one["entry/drift/dy"], one["entry/drift/dx"]], 1)
    assert np.sqrt(np.square(found - truth).mean()) < 0.2  # pixels, of few frames that are small
    # The table that `drift` writes gives the same maps.
    outcome = hrtemvae("drift", "m.h5", ranks=2)
    assert outcome.code == 0, outcome.text
    assert "corrected by whole pixels: m.drift.csv, drawn in m.drift.png" in outcome.text
    given = hrtemvae(*words, "--drift", "m.drift.csv", "-o", "given.h5")
    assert given.code == 0, given.text
    assert_same_maps(tmp_path / "alone.h5", tmp_path / "given.h5")
    # So does a run that resumes: it finds what was measured.
    assert hrtemvae(*words, "-o", "alone.h5").text.count("already holds this analysis") == 1


def test_a_movie_that_stands_still_is_analysed_as_it_is(
    hrtemvae: Program, tmp_path: Path, calm: Path, tiny_model_path: Path
) -> None:
    words = ("analyze", calm, "--model", tiny_model_path, "--step", 16)
    outcome = hrtemvae(*words, "-o", "auto.h5")
    assert "too little to correct" in outcome.text
    assert hrtemvae(*words, "--drift", "none", "-o", "none.h5").code == 0
    assert_same_maps(tmp_path / "auto.h5", tmp_path / "none.h5")
    assert "From frame to frame" in (tmp_path / "auto.html").read_text()
    assert "From frame to frame" not in (tmp_path / "none.html").read_text()


def test_what_is_uncertain_is_not_corrected(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(60, (12, 128, 128)).astype(np.uint16)
    with h5py.File(tmp_path / "noise.h5", "w") as file:
        file["m"] = noise
    outcome = hrtemvae("analyze", "noise.h5", "--model", tiny_model_path, "--step", 32)
    assert outcome.code == 0, outcome.text
    assert "warning   the drift is uncertain" in outcome.text
    with h5py.File(tmp_path / "noise.maps.h5") as file:
        assert not np.any(file["entry/drift/applied_dy"])
    assert "the drift is uncertain" in (tmp_path / "noise.maps.html").read_text()


@pytest.mark.parametrize(("what", "valid"), [("skip", 9), ("keep", 10)])
def test_frames_that_show_no_image_are_left_out(
    hrtemvae: Program, tmp_path: Path, calm: Path, tiny_model_path: Path, what: str, valid: int
) -> None:
    shutil.copy(calm, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file["entry/data/data"][4] = np.random.default_rng(1).poisson(2, (192, 224))
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "--step", 16, "--on-blank-frame", what)
    assert outcome.code == 0, outcome.text
    assert ("1 frames show no image and are left out: 4" in outcome.text) == (what == "skip")
    assert (read_maps(tmp_path / "m.maps.h5")["valid_frames"] == valid).all()


@pytest.mark.parametrize(
    ("table", "words"),
    [("frame,time_s,dy_px,dx_px,quality\n0,,0,0,1\n", "has 1 frames, but 9"), ("nothing", "its first line must be"),
     (None, "no-such.csv"), ("", "its first line must be")],
)  # fmt: skip
def test_tables_that_do_not_fit(
    hrtemvae: Program, tmp_path: Path, folder: Path, tiny_model_path: Path, table: str | None, words: str
) -> None:
    path = tmp_path / "no-such.csv"
    if table is not None:
        path.write_text(table)
    outcome = hrtemvae("analyze", folder / "still.h5", "--model", tiny_model_path, "--drift", path)
    assert_refused(outcome, words)


def test_a_drift_larger_than_the_frame(hrtemvae: Program, tmp_path: Path, folder: Path, tiny_model_path: Path) -> None:
    write_table(tmp_path / "far.csv", [(0, 0)] * 8 + [(0, -90)])
    outcome = hrtemvae("analyze", folder / "still.h5", "--model", tiny_model_path, "--drift", "far.csv")
    assert_refused(outcome, "frame 8", "larger than the frame of 70 x 90")


def test_the_dose_of_a_calibrated_detector(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    hrtemvae("simulate", "--frames", 6, "--size", 192, 200, "-o", "m.h5")
    converted = hrtemvae("convert", "m.h5", "--counts-per-electron", 2, "--bin", 2, "-o", "c.h5")
    assert converted.code == 0, converted.text
    assert hrtemvae("analyze", "c.h5", "--model", tiny_model_path, "--step", 16).code == 0
    with h5py.File(tmp_path / "m.h5") as file:
        counts = file["entry/data/data"][...].mean()
    dose = counts / 2 / 0.145**2  # 2 counts per electron, 0.0145 nm per pixel
    page = (tmp_path / "c.maps.html").read_text()
    assert f"The dose is {dose:.3g} electrons per Å² and frame, {dose / 0.8:.3g} per Å² and second." in page


def test_a_region_that_is_too_narrow_is_refused(hrtemvae: Program, movie_path: Path, tiny_model_path: Path) -> None:
    outcome = hrtemvae("analyze", movie_path, "--model", tiny_model_path, "--drift-roi", "0:8,0:90")
    assert_refused(outcome, "--drift-roi names 8 x 90 pixels", "name at least 16 along each side")

"""The command `hrtemvae lattice`: what it writes of movies and results, at any number of ranks, and what it refuses."""

import csv
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused
from lattice_images import noisy, two_crystals
from scipy import stats
from silx.io.nxdata import get_default

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.interpretation.box_frames import BoxFrames
from hrtemvae_hpc.movie.movie import Movie

FRAMES = 9
TURN = 0.5  # degrees a frame
DRIFT = (2, -1)  # pixels down and right, a frame
EDGE = 130 - np.arange(FRAMES)  # column where the second crystal ends


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lattices")
    scenes = [two_crystals(angles=(5.0, 25.0 + TURN * t), edge=int(EDGE[t])) for t in range(FRAMES)]
    with h5py.File(folder / "movie.h5", "w") as file:
        file["m"] = np.stack([noisy(scene, t) for t, scene in enumerate(scenes)]).astype(np.uint16)
    drifting = [np.roll(scene, (DRIFT[0] * t, DRIFT[1] * t), (0, 1)) for t, scene in enumerate(scenes)]
    with h5py.File(folder / "drifting.h5", "w") as file:
        file["m"] = np.stack([noisy(scene, t) for t, scene in enumerate(drifting)]).astype(np.uint16)
    rows = [f"{t},,{DRIFT[0] * t},{DRIFT[1] * t},1" for t in range(FRAMES)]
    (folder / "drift.csv").write_text("\n".join(["frame,time_s,dy_px,dx_px,quality", *rows, ""]))
    return folder


SCALE = ("--pixel-size", 0.03, "--frame-time", 0.5)


@pytest.fixture(scope="module")
def written(folder: Path, run_in: Callable[[Path], Program]) -> Path:
    ran = run_in(folder)("lattice", "movie.h5", "--drift", "none", *SCALE, "-o", "l.h5")
    assert ran.code == 0, ran.text
    return folder / "l.h5"


def series(path: Path, name: str, box: int = 1) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[f"entry/box_{box}/lattices/{name}"][...])


def check_truth(path: Path) -> None:
    turned = abs(series(path, "misfit")[0, 1])
    np.testing.assert_allclose(turned, 20 + TURN * np.arange(FRAMES), atol=0.2)
    areas = series(path, "area")
    whole, shrinking = sorted(areas, key=np.ptp)
    pixel = 0.03**2
    np.testing.assert_allclose(whole, 88 * 55 * pixel, rtol=0.03)
    np.testing.assert_allclose(shrinking, 88 * (EDGE - 75) * pixel, rtol=0.04)


def test_a_movie(written: Path) -> None:
    check_truth(written)
    np.testing.assert_allclose(series(written, "spacing"), 8 * 0.03, rtol=5e-3)
    turning = int(np.ptp(series(written, "angle"), axis=1).argmax())
    np.testing.assert_allclose(series(written, "contrast")[1 - turning], 0.2, rtol=0.05)
    np.testing.assert_allclose(series(written, "time"), 0.5 * np.arange(FRAMES))
    with h5py.File(written) as file:
        box = file["entry/box_1"]
        change, areas, rotation = (box[f"{name}/data"][...] for name in ("change", "areas", "rotation"))
        assert np.nanmedian(rotation[turning, -1]) == pytest.approx(TURN * (FRAMES - 1), abs=0.2)
        assert np.nanmedian(rotation[1 - turning, -1]) == pytest.approx(0, abs=0.2)
        for lattice in (0, 1):
            first, last = areas[0] == lattice + 1, areas[-1] == lattice + 1
            np.testing.assert_array_equal(change[lattice] == 1, first & ~last)
        lost = np.zeros(change.shape[1:], bool)
        lost[20:108, EDGE[-1] : EDGE[0]] = True
        overlap = (change[turning] == 1) & lost
        assert overlap.sum() > 0.7 * lost.sum()


def test_the_table_says_what_the_file_does(written: Path) -> None:
    with written.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * FRAMES
    misfit, area = series(written, "misfit"), series(written, "area")
    for row in rows:
        t, lattice = int(row["frame"]), int(row["lattice"]) - 1
        assert float(row["misfit_degrees"]) == pytest.approx(misfit[0, lattice, t], abs=1e-4)
        assert float(row["area"]) == pytest.approx(area[lattice, t], rel=1e-5)
        assert float(row["time_s"]) == 0.5 * t
        assert row["units"] == "nm"


def test_nexus_viewers_find_the_angles_and_the_page_needs_nothing_else(written: Path) -> None:
    with h5py.File(written) as file:
        shown = get_default(file)
        assert shown.signal.name.endswith("/lattices/angle")
        for group in file["entry/box_1"].values():
            if group.attrs.get("NX_class") == "NXdata":
                signal = group[group.attrs["signal"]]
                assert signal.ndim == len(group.attrs["axes"])
    page = written.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64") == 5
    assert "http" not in page.replace("http-equiv", "")


def test_ranks_measure_the_same(hrtemvae: Program, folder: Path, written: Path) -> None:
    ran = hrtemvae("lattice", folder / "movie.h5", "--drift", "none", *SCALE, "-o", "m.h5", ranks=3)
    assert ran.code == 0, ran.text
    for name in ("reflection", "area", "contrast"):
        np.testing.assert_array_equal(series(hrtemvae.folder / "m.h5", name), series(written, name))


def test_boxes_of_a_movie_that_drifts(hrtemvae: Program, folder: Path) -> None:
    options = ("--drift", folder / "drift.csv", *SCALE)
    boxes = ("--box", "5:,:150", "--box", "10:100,15:80", "--frames", f"0:{FRAMES}")
    ran = hrtemvae("lattice", folder / "drifting.h5", *boxes, *options, "-o", "l.h5")
    assert ran.code == 0, ran.text
    check_truth(hrtemvae.folder / "l.h5")
    assert len(series(hrtemvae.folder / "l.h5", "area", 2)) == 1
    with h5py.File(hrtemvae.folder / "l.h5") as file:
        place = file["entry/box_1/place"][...].tolist()
    assert place == [5, 128 - DRIFT[0] * (FRAMES - 1), -DRIFT[1] * (FRAMES - 1), 150], "what lies within all frames"


def test_a_result_and_its_moved_movie(hrtemvae: Program, folder: Path, tiny_model_path: Path) -> None:
    movie = hrtemvae.folder / "movie.h5"
    movie.hardlink_to(folder / "drifting.h5")
    words = ("--model", tiny_model_path, "--drift", folder / "drift.csv", "--roi", "5:,:150", *SCALE)
    assert hrtemvae("analyze", "movie.h5", *words, "-o", "maps.h5").code == 0
    ran = hrtemvae("lattice", "maps.h5")
    assert ran.code == 0, ran.text
    check_truth(hrtemvae.folder / "maps.lattice.h5")
    check_latents(hrtemvae.folder / "maps.lattice.h5")
    movie.rename(hrtemvae.folder / "moved.h5")
    assert_refused(hrtemvae("lattice", "maps.h5"), "movie.h5", "--movie")
    assert hrtemvae("lattice", "maps.h5", "--movie", "moved.h5").code == 0
    assert_refused(hrtemvae("lattice", "maps.h5", "--movie", "moved.h5", "--frames", "0:4"), "maps.h5", "leave out")
    assert_refused(hrtemvae("lattice", "moved.h5", "--movie", "movie.h5"), "moved.h5", "--movie")


def check_latents(path: Path) -> None:
    with h5py.File(path) as file:
        own = file["entry/box_1/latents"]
        z, rho, simulated = (own[name][...] for name in ("z", "rho", "simulated_z"))
        quantities = own["quantity"].asstr()[...].tolist()
        windows = own["simulated_window"][...]
    assert quantities == ["area 1", "area 2", "angle 1", "angle 2", "misfit 2"]
    for i, values in enumerate([*series(path, "area"), *series(path, "angle"), series(path, "misfit")[0, 1]]):
        expected = [stats.spearmanr(column, values).statistic for column in z.T]
        np.testing.assert_allclose(rho[i], expected, atol=1e-6)
    assert simulated.shape == z.shape
    assert windows.shape == (FRAMES, 16, 16)
    moved = abs(np.diff(windows, axis=0)).max((1, 2))
    assert (moved > 1e-3).all(), "the simulated pair turns"


REFUSED = {
    "a box outside": (("--box", "0:64,100:161"), ("--box 0:64,100:161", "0:160")),
    "no box": (("--box", "12"), ("--box 12", "y0:y1,x0:x1")),
    "a small box": (("--box", "0:64,0:40"), ("64 x 40 pixels", "choose a larger box")),
    "no lattice": (("--frames", "3:9", "--box", "0:128,0:48", "--dataset", "noise"), ("noise", "no lattice found")),
    "a short movie": (("--frames", "0:2"), ("movie.h5", "2 frames", "at least 3")),
    "an even mean": (("--average", "4"), ("--average 4", "odd")),
    "little memory": (("--max-memory", "1MB"), ("--max-memory", "--box")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input(hrtemvae: Program, folder: Path, what: str) -> None:
    options, words = REFUSED[what]
    movie = hrtemvae.folder / "movie.h5"
    with h5py.File(folder / "movie.h5") as source, h5py.File(movie, "w") as file:
        file["m"] = source["m"][...]
        file["noise"] = np.random.default_rng(0).poisson(100, source["m"].shape).astype(np.uint16)
    if "noise" not in options:
        options = (*options, "--dataset", "m")
    assert_refused(hrtemvae("lattice", "movie.h5", "--drift", "none", *options, "-o", "l.h5"), *words)
    assert sorted(path.name for path in hrtemvae.folder.iterdir()) == ["movie.h5"]


def test_only_own_files_are_replaced(hrtemvae: Program, folder: Path) -> None:
    (hrtemvae.folder / "l.csv").write_text("mine")
    assert_refused(hrtemvae("lattice", folder / "movie.h5", "-o", "l.h5"), "l.csv", "move it away")
    assert (hrtemvae.folder / "l.csv").read_text() == "mine"


def test_means_have_the_time_of_their_frame(tmp_path: Path) -> None:
    pixels = np.arange(7, dtype=np.uint16)[:, None, None] * np.ones((48, 48), np.uint16)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    left_out = np.arange(7) == 2
    with Movie(tmp_path / "m.h5") as movie:
        box = BoxFrames(movie, movie.area, left_out, 5)
        assert [float(box.image(t).mean()) for t in range(6)] == pytest.approx([0, 4 / 3, 13 / 5, 19 / 5, 5, 6])
        with pytest.raises(InputError, match="larger box"):
            BoxFrames(movie, Area(slice(0, 48), slice(1, 48)), left_out, 5)

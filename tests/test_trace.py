"""Traces of single places: against the Keras oracle, the maps of the same result, plain loops and scipy."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from commands import Program
from conftest import assert_refused, drifting_pixels, read_maps
from damage import break_chunk
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_scaled
from scipy import stats

from hrtemvae_hpc.interpretation import encode
from hrtemvae_hpc.interpretation.encode import encode_places
from hrtemvae_hpc.interpretation.places import Place, place_at, place_in_box
from hrtemvae_hpc.interpretation.reopen import Reopened, reopen
from hrtemvae_hpc.interpretation.trace import trace
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.model.keras_import import import_keras
from hrtemvae_hpc.model.model_file import save_model
from hrtemvae_hpc.statistics.series import running_mean


@contextmanager
def opened(path: Path) -> Iterator[Reopened]:
    with open_result(path) as result, reopen(result) as again:
        yield again


def every_window(again: Reopened) -> list[Place]:
    return [Place(f"{at}", np.array([at])) for at in np.ndindex(again.result.valid_frames.shape)]


def analysed(run: Program, *arguments: object) -> Path:
    outcome = run("analyze", *arguments, "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    return run.folder / "maps.h5"


@pytest.fixture(scope="module")
def maps(
    tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program], movie_path: Path, tiny_model_path: Path
) -> Path:
    """Of 12 frames of 70 x 90 pixels, 0.02 nm each: 7 x 10 windows of 16 pixels, 8 apart. The model has no decoder."""
    run = run_in(tmp_path_factory.mktemp("maps"))
    return analysed(run, movie_path, "--model", tiny_model_path, "--pixel-size", 0.02, "--frame-time", 0.5)


def test_oracle(hrtemvae: Program, shared: Path, tmp_path: Path) -> None:
    save_model(import_keras(shared / "oracle" / "encoder.keras"), tmp_path / "oracle.safetensors")
    movie = shared / "oracle" / "movie.h5"
    path = analysed(hrtemvae, movie, "--model", tmp_path / "oracle.safetensors", "--drift", "none")
    expected = np.load(shared / "oracle" / "expected.npz")["z_mean"]
    with opened(path) as again:
        traces = trace(again, every_window(again))
    frames, rows, columns, latents = expected.shape
    np.testing.assert_allclose(traces.z, expected.reshape(frames, rows * columns, latents), rtol=0, atol=1e-5)
    assert traces.valid.all()
    for name in ("variance", "spearman", "mean", "time_correlated_variance"):
        np.testing.assert_array_equal(traces.statistics[name].T.reshape(-1, rows, columns), read_maps(path)[name])
    assert traces.agreement.endswith("to the bit.")


SETTINGS = [
    "--drift none",
    "--scaling frame --clip-outliers",
    "--scaling local --drift table.csv",
    "--scaling local --on-bad-frame skip --drift none",
    "--resample 1.3 --step 5",
    "--roi 3:,:80 --frames 1:12:2 --precision bf16 --drift none",
    "--drift table.csv --step 20",
    "--on-bad-frame skip",
    "--frame-time 0.5 --against log.csv --partial",
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_variance_and_rho_have_the_bits_of_the_maps(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = drifting_pixels(12, 70, 90)
    pixels[4:7, :30, 60:] = 5  # flat
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("m", data=pixels, chunks=(2, 35, 90), compression="gzip")
    if "skip" in settings:
        break_chunk(tmp_path / "m.h5", "m", 5)
    rows = "".join(f"{t},,{t % 4},{-2 * (t % 3)},1\n" for t in range(12))
    (tmp_path / "table.csv").write_text(f"frame,time_s,dy_px,dx_px,quality\n{rows}")
    (tmp_path / "log.csv").write_text("time_s,value\n0,20\n2.2,90\n3.1,30\n6,500\n")
    path = analysed(hrtemvae, "m.h5", "--model", tiny_model_path, *settings.split())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "_SLAB_BYTES", 1)  # as few frames at once as chunks allow
    expected = read_maps(path)
    with opened(path) as again:
        traces = trace(again, every_window(again))
    shape = expected["valid_frames"].shape
    np.testing.assert_array_equal(traces.valid_frames.reshape(shape), expected["valid_frames"])
    for name in ("variance", "spearman", "mean", "time_correlated_variance"):
        np.testing.assert_array_equal(traces.statistics[name].T.reshape(-1, *shape), expected[name], err_msg=name)
    with h5py.File(path) as file:
        chance = file["entry/significance/p_value"][...]
    np.testing.assert_array_equal(traces.statistics["p"].T.reshape(-1, *shape), chance)
    assert np.isnan(traces.z[~traces.valid]).all()


def test_blocks_that_share_chunks_are_read_once_and_others_apart(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = []
    for chunks, at_most, reads in (((1, 150, 150), 2**30, 1), ((1, 20, 20), 2**30, 2), ((1, 150, 150), 1, 4)):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file.create_dataset("m", data=drifting_pixels(3, 150, 150), chunks=chunks)
        path = analysed(hrtemvae, "m.h5", "--model", tiny_model_path, "--drift", "none", "--restart")
        monkeypatch.setattr(encode, "_WAITING_BYTES", at_most)
        with opened(path) as again:
            corners = [Place(f"{at}", np.array([at])) for at in ((0, 0), (3, 5), (2, 4), (16, 16), (15, 16))]
            blocks = [encode._block(again.grid, again.engine.block, *at) for at in ((0, 0), (0, 1), (3, 4), (4, 4))]
            assert len(list(encode._read_together(again, blocks))) == reads
            z.append(encode_places(again, corners)[0])
    np.testing.assert_array_equal(z[0], z[1])
    np.testing.assert_array_equal(z[0], z[2])


def test_a_box_is_the_mean_over_its_windows(maps: Path) -> None:
    with opened(maps) as again:
        box = place_in_box(again.result, "10:40,20:70")
        y, x = (7.5 + 8 * np.arange(n) for n in (7, 10))
        inside = [(i, j) for i in range(7) for j in range(10) if 9.5 <= y[i] < 39.5 and 19.5 <= x[j] < 69.5]
        assert sorted(map(tuple, box.windows.tolist())) == inside
        z, valid = encode_places(again, [box, *(Place("", np.array([at])) for at in inside)])
    assert valid.all()
    np.testing.assert_allclose(z[:, 0], z[:, 1:].mean(1), atol=1e-6)


def test_windows_that_miss_frames_do_not_shift_a_mean(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    pixels = drifting_pixels(8, 40, 56)
    pixels[5:, :16, :16] = 0
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    path = analysed(hrtemvae, "m.h5", "--model", tiny_model_path, "--drift", "none")
    with opened(path) as again:
        place = place_in_box(again.result, "0:40,0:56")
        assert len(place.windows) == again.result.valid_frames.size - 1
        assert encode_places(again, [place])[1].all()


def test_a_window_that_is_always_flat_has_a_page_that_says_so(hrtemvae: Program, tmp_path: Path) -> None:
    pixels = drifting_pixels(4, 160, 160)
    pixels[:, :64, :64] = 3
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    analysed(hrtemvae, "m.h5", "--step", 32, "--drift", "none")
    outcome = hrtemvae("trace", "maps.h5", "--at", "31,31", "--at", "95,95")
    assert outcome.code == 0, outcome.text
    page = (tmp_path / "maps.trace" / "trace.html").read_text()
    assert page.count("Fewer than three frames are valid") == 1
    assert {row["variance"] for row in read_table(tmp_path / "maps.trace" / "statistics.csv")[:64]} == {""}


@pytest.mark.parametrize(
    ("point", "window"),
    [
        ("7.5,7.5", (0, 0)),
        ("12,19", (1, 1)),
        ("55.6, 79.4", (6, 9)),
        ("0.31nm,0.47nm", (1, 2)),
        ("31px,0.15nm", (3, 0)),
    ],
)
def test_a_point_means_the_nearest_window(maps: Path, point: str, window: tuple[int, int]) -> None:
    with open_result(maps) as result:
        np.testing.assert_array_equal(place_at(result, point).windows, [window])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "name places with --at"),
        ("--at 200,10", "lies outside of the movie's frame, whose rows are 0 to 69"),
        ("--at 2,40", "no window is centred there; centres lie at rows 7.5 to 55.5"),
        ("--at 30", "give a place as y,x"),
        ("--at 3um,4um", "give a place as y,x"),
        ("--box 0:5,0:5", "no window is centred in it"),
        ("--box 10:400,0:5", "its rows 10:400 do not lie in the frame's 0:70"),
        ("--box 10", "give a region as y0:y1,x0:x1"),
        ("--at 30,30 --latents 7", "--latents 7: there is no such latent; they are 0 to 4"),
        ("--at 30,30 --latents z1", "give whole numbers"),
        ("--at 30,30 --show 12", "--show 12: was not analysed; frames 0 to 11 were"),
        ("--mask odd.npy", "has 5 x 6 pixels, but the movie's frame has 70 x 90 and the maps have 7 x 10"),
        ("--mask empty.npy", "no window is centred in it"),
        ("--mask two.npy", "holds 2 images; give one"),
        ("--mask nothing.tif", "there is no such file"),
        ("--at 30,30 --model other.safetensors", "is not the model of"),
        ("--at 30,30 --model nothing.safetensors", "there is no such model file"),
        ("--at 30,30 --movie other.h5", "is not the movie of"),
        ("--at 30,30 -o .", "which this program did not put there"),
    ],
)
def test_what_can_not_be_traced_is_refused(
    hrtemvae: Program, maps: Path, tmp_path: Path, words: str, says: str
) -> None:
    np.save(tmp_path / "odd.npy", np.ones((5, 6), bool))
    np.save(tmp_path / "empty.npy", np.zeros((70, 90), bool))
    np.save(tmp_path / "two.npy", np.ones((2, 70, 90), np.uint8))
    with open_result(maps) as result, reopen(result) as again:
        save_model(again.model, tmp_path / "other.safetensors", torch.bfloat16)
        (tmp_path / "other.h5").write_bytes(again.movie.path.read_bytes())  # made later
    before = set(tmp_path.iterdir())
    assert_refused(hrtemvae("trace", maps, *words.split()), says)
    assert not (maps.parent / "maps.trace").exists()
    assert set(tmp_path.iterdir()) == before


def test_a_movie_or_model_that_was_moved_is_named(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = drifting_pixels(4, 40, 56)
    (tmp_path / "model.safetensors").write_bytes(tiny_model_path.read_bytes())
    analysed(hrtemvae, "m.h5", "--model", "model.safetensors")
    (tmp_path / "m.h5").rename(tmp_path / "moved.h5")
    (tmp_path / "model.safetensors").rename(tmp_path / "moved.safetensors")
    words = ["trace", "maps.h5", "--at", "20,20"]
    assert_refused(hrtemvae(*words), "model.safetensors: the model of maps.h5 is not there", "--model")
    words += ["--model", "moved.safetensors"]
    assert_refused(hrtemvae(*words), "m.h5: the movie of maps.h5 is not there", "--movie")
    outcome = hrtemvae(*words, "--movie", "moved.h5")
    assert (outcome.code, "to the bit" in outcome.text) == (0, True), outcome.text
    again = hrtemvae(*words, "--movie", "moved.h5", "--show", "0,3")
    assert again.code == 0, again.text


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_hold_the_same_numbers(hrtemvae: Program, maps: Path, tmp_path: Path) -> None:
    mask = np.zeros((7, 10), np.uint8)
    mask[2:4, 5] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    words = ("--at", "31.5,39.5", "--mask", "mask.tif", "--latents", "3,0", "--show", "2,5", "-o", "out")
    outcome = hrtemvae("trace", maps, *words)
    assert outcome.code == 0, outcome.text
    out = tmp_path / "out"
    with opened(maps) as again:
        places = [Place("", np.array([(3, 4)])), Place("", np.array([(2, 5), (3, 5)]))]
        z = encode_places(again, places)[0][..., [3, 0]]
        assert list(again.result.latent) == [0, 1, 2, 3, 4]
    with h5py.File(out / "trace.h5") as file:
        entry = file["entry"]
        np.testing.assert_array_equal(entry["z/data"], z)
        np.testing.assert_array_equal(entry["z/latent"], [3, 0])
        np.testing.assert_allclose(entry["z/time"], 0.5 * np.arange(12))
        np.testing.assert_allclose(entry["places/centre"], [(31.5, 39.5), (27.5, 47.5)])
        np.testing.assert_array_equal(entry["places/window"], [(0, 3, 4), (1, 2, 5), (1, 3, 5)])
        np.testing.assert_array_equal(entry["windows_0/frame"], [2, 5])
        assert entry["windows_0/data"].shape == (2, 16, 16)
        assert "reconstruction" not in entry["windows_0"]  # the model has no decoder
        running, rho, p = (entry[f"{name}/data"][...] for name in ("running_mean", "spearman", "p"))
    table = read_table(out / "series.csv")
    assert [(row["place"], row["frame"]) for row in table] == [(str(i), str(t)) for i in range(2) for t in range(12)]
    np.testing.assert_array_equal(np.array([row["z3"] for row in table], np.float32).reshape(2, 12).T, z[..., 0])
    means = [float(row["z0_mean10"] or "nan") for row in table]
    np.testing.assert_array_equal(np.array(means, np.float32).reshape(2, 12).T, running[..., 1])
    summary = read_table(out / "statistics.csv")
    assert [(row["place"], row["latent"], row["windows"]) for row in summary] == [
        ("0", "3", "1"), ("0", "0", "1"), ("1", "3", "2"), ("1", "0", "2"),
    ]  # fmt: skip
    assert float(summary[0]["y_nm"]) == pytest.approx(31.5 * 0.02)
    for i in range(2):
        for k in range(2):
            expected = stats.spearmanr(z[:, i, k], np.arange(12))
            assert rho[i, k] == pytest.approx(expected.statistic, rel=1e-5)
    assert ((p > 0) & (p <= 1)).all()
    page = (out / "trace.html").read_text()
    assert "The model has no decoder" in page
    assert "mean over 2 windows" in page


def test_windows_are_shown_beside_their_reconstructions(hrtemvae: Program, tmp_path: Path) -> None:
    outcome = hrtemvae("simulate", "--frames", 4, "--size", 192, 224, "-o", "m.h5")
    assert outcome.code == 0, outcome.text
    path = analysed(hrtemvae, "m.h5", "--step", 16, "--drift", "none")
    with opened(path) as again:
        traces = trace(again, [place_at(again.result, "96,112")])
        (views,) = traces.views
        row, column = traces.places[0].windows[0] * 16
        pixels = again.movie.read(slice(0, 4), again.movie.area)[:, row : row + 64, column : column + 64]
        decoder = again.model.decoder
    np.testing.assert_array_equal(views.times, [0, 2, 3])
    for window, t in zip(views.windows, views.times, strict=True):
        expected = plain_scaled(pixels[t])
        assert expected is not None
        np.testing.assert_allclose(window, expected, atol=1e-6)
    assert views.reconstructions is not None
    assert views.correlations is not None
    assert decoder is not None
    z = torch.from_numpy(traces.z[views.times, 0])
    native = torch.empty_like(z)
    native[:, list(again.model.latent_order)] = z
    decoded = torch.sigmoid(decoder(native))[:, 0].detach().numpy()
    np.testing.assert_allclose(views.reconstructions, decoded, atol=1e-4)
    for window, image, alike in zip(views.windows, views.reconstructions, views.correlations, strict=True):
        assert alike == pytest.approx(stats.pearsonr(window.ravel(), image.ravel()).statistic, abs=1e-5)
        assert alike > 0.5


@given(frames=st.integers(1, 30), gaps=st.lists(st.integers(0, 29), max_size=20), seed=st.integers(0, 99))
def test_running_means_agree_with_a_loop(frames: int, gaps: list[int], seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(frames, 2, 3)).astype(np.float32)
    valid = np.ones((frames, 2), bool)
    valid[[t for t in gaps if t < frames], 1] = False
    expected = np.full(z.shape, np.nan)
    for t in range(5, frames - 4):
        for i in range(2):
            kept = [z[u, i] for u in range(t - 5, t + 5) if valid[u, i]]
            if kept:
                expected[t, i] = np.mean(kept, 0)
    np.testing.assert_allclose(running_mean(z, valid), expected, atol=1e-6)

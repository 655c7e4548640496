"""The main job through the command line: alone, on several ranks, with any tiling."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import Program, command_line, environment
from conftest import MAPS, assert_refused, assert_same_maps, drifting_pixels, read_maps
from damage import break_chunk
from plain import plain_latents, plain_statistics
from scipy import stats

from hrtemvae_hpc.model.model_file import Model, load_model


@pytest.fixture(scope="session")
def oracle_model(tmp_path_factory: pytest.TempPathFactory, shared: Path, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    imported = run_in(folder)("model", "import-keras", shared / "oracle" / "encoder.keras", "-o", "oracle.safetensors")
    assert imported.code == 0, imported.text
    return folder / "oracle.safetensors"


@pytest.fixture(scope="session")
def alone(
    tmp_path_factory: pytest.TempPathFactory, shared: Path, oracle_model: Path, run_in: Callable[[Path], Program]
) -> Path:
    """The oracle's maps from a world of one."""
    folder = tmp_path_factory.mktemp("alone")
    words = ("analyze", shared / "oracle" / "movie.h5", "--model", oracle_model, "--drift", "none", "-o", "maps.h5")
    outcome = run_in(folder)(*words)
    assert outcome.code == 0, outcome.text
    return folder / "maps.h5"


def rho_uncertainty(latents: np.ndarray, error: float) -> np.ndarray:
    """By how much rho [...] may differ where latents [frames, ...] are ``error`` off: frames that close may swap
    their ranks, and each swap of t and u moves rho = 1 - 6 sum(d^2) / (n (n^2 - 1)) by 12 |t - u| / (n (n^2 - 1)).
    """
    n = len(latents)
    swaps: np.ndarray = sum(
        abs(t - u) * (np.abs(latents[t] - latents[u]) <= 2 * error) for t, u in itertools.combinations(range(n), 2)
    )
    return 12 * swaps / (n * (n**2 - 1))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_oracle(hrtemvae: Program, shared: Path, oracle_model: Path, alone: Path, tmp_path: Path, ranks: int) -> None:
    movie = shared / "oracle" / "movie.h5"
    outcome = hrtemvae("analyze", movie, "--model", oracle_model, "--drift", "none", "-o", "maps.h5", ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert_same_maps(tmp_path / "maps.h5", alone)
    got, expected = read_maps(tmp_path / "maps.h5"), np.load(shared / "oracle" / "expected.npz")
    order = (2, 0, 1)
    assert (got["valid_frames"] == 24).all()
    np.testing.assert_allclose(got["mean"], expected["z_mean"].mean(0).transpose(order), atol=1e-4)
    np.testing.assert_allclose(got["variance"], expected["variance"].transpose(order), rtol=1e-4)
    slack = 1e-6 + rho_uncertainty(expected["z_mean"], 1e-5)
    assert (np.abs(got["spearman"] - expected["spearman"].transpose(order)) <= slack.transpose(order)).all()
    product = expected["time_correlated_variance"].transpose(order)
    off = (expected["variance"] * (2e-4 + 2 * slack)).transpose(order)
    assert (np.abs(got["time_correlated_variance"] - product) <= off).all()


def tiles_of(rows: int, columns: int) -> dict[str, Any]:
    """How to start the program so that tiles have ``rows`` x ``columns`` blocks."""
    return {"script": "paced.py", "variables": {"HRTEMVAE_TILES": f"{rows}x{columns}"}}


def test_maps_are_the_same_for_any_tiling_and_world(
    hrtemvae: Program, tmp_path: Path, shared: Path, oracle_model: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file["m"] = drifting_pixels(3, 210, 210)
    # 19 x 19 windows in 3 x 3 blocks, which share three convolutions; 7 x 10 in 2 x 3, which share one.
    wide, small = (tmp_path / "wide.h5", oracle_model), (movie_path, tiny_model_path)
    cases = [(*wide, 1, 1, 3, 9), (*wide, 2, 1, None, 6), (*small, 1, 1, 3, 6), (*small, 1, 3, 2, 2)]
    for movie, model in (wide, small):
        assert hrtemvae("analyze", movie, "--model", model, "-o", f"{movie.stem}.alone.h5", threads=2).code == 0
    for movie, model, rows, columns, ranks, tiles in cases:
        output = tmp_path / f"{movie.stem}.{rows}x{columns}.h5"
        words = ("analyze", movie, "--model", model, "-o", output, "--keep-parts")
        outcome = hrtemvae(*words, ranks=ranks, **tiles_of(rows, columns))
        assert outcome.code == 0, outcome.text
        assert_same_maps(tmp_path / f"{movie.stem}.alone.h5", output)
        assert len(list(Path(f"{output}.parts").glob("*.safetensors"))) == tiles


def test_a_slow_rank_delays_the_end_by_one_tile_at_most(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    variables = {"HRTEMVAE_TILES": "1x1", "HRTEMVAE_PACE": "0.2,0.6", "HRTEMVAE_TIMES": str(tmp_path)}
    words = ("analyze", movie_path, "--model", tiny_model_path, "--step", 3)
    outcome = hrtemvae(*words, ranks=2, script="paced.py", variables=variables)
    assert outcome.code == 0, outcome.text
    fast, slow = ([float(line) for line in (tmp_path / f"rank{r}").read_text().split()] for r in (0, 1))
    assert len(fast) + len(slow) == 35
    assert len(fast) > 2 * len(slow)
    assert sum(end > fast[-1] for end in slow) <= 1


def test_ranks_end_together(hrtemvae: Program, movie_path: Path, tiny_model_path: Path) -> None:
    words = ("analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5")
    outcome = hrtemvae(*words, ranks=2, script="slow_result.py", variables={"HRTEMVAE_PACE": "2"})
    assert outcome.code == 0, outcome.text
    lines = outcome.text.splitlines()
    assert lines.index("rank 1 ends") > next(i for i, line in enumerate(lines) if line.startswith("result:"))


@pytest.mark.parametrize("ranks", [None, 2])
def test_agrees_with_a_plain_loop(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, ranks: int | None) -> None:
    model: Model = load_model(tiny_model_path)
    pixels = drifting_pixels(9, 60, 50).astype(np.float32)
    pixels[2, 10, 10] = np.nan
    pixels[3:, :20, 30:] = 7  # flat from the fourth frame on
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m"] = pixels
    arguments = ["analyze", "m.h5", "--model", tiny_model_path, "--step", 5, "--roi", "2:,:49", "--frames", "0:8"]
    arguments += ["--drift", "none"]
    outcome = hrtemvae(*arguments, ranks=ranks)
    assert outcome.code == 0, outcome.text
    z, valid = plain_latents(model, pixels[:8, 2:, :49], 5)
    expected = plain_statistics(z, valid)
    got = read_maps(tmp_path / "m.maps.h5")
    shape = got["valid_frames"].shape
    assert shape == (9, 7)
    np.testing.assert_array_equal(got["valid_frames"], valid.sum(0).reshape(shape))
    tolerance = {"mean": 1e-4, "variance": 1e-4, "spearman": 1e-6, "time_correlated_variance": 1e-4}
    for name in MAPS:
        np.testing.assert_allclose(got[name], expected[name].T.reshape(-1, *shape), atol=tolerance[name], err_msg=name)
    places = {"noise/data": "noise", "change/frame": "change", "change/data": "score"}
    for place, name in (places | {"reproducibility/even": "even", "reproducibility/odd": "odd"}).items():
        np.testing.assert_allclose(got[place], expected[name].T.reshape(-1, *shape), atol=1e-4, err_msg=place)
    np.testing.assert_array_equal(got["excess_variance/data"], got["variance"] - got["noise/data"])
    tested = valid.sum(0).reshape(shape) >= 5
    for place in ("significance/data", "significance/p_value"):
        assert (np.isfinite(got[place]) == tested).all()
        assert ((got[place][:, tested] > 0) & (got[place][:, tested] <= 1)).all()
    assert (got["significance/data"][:, tested] >= got["significance/p_value"][:, tested]).all()
    for latent, correlation in enumerate(got["reproducibility/correlation"]):
        one, other = (got[f"reproducibility/{half}"][latent] for half in ("even", "odd"))
        both = np.isfinite(one) & np.isfinite(other)
        assert correlation == pytest.approx(stats.pearsonr(one[both], other[both])[0])


def test_a_result_records_where_it_came_from(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    outcome = hrtemvae("analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5", "--frames", "1:", ranks=2)
    assert outcome.code == 0, outcome.text
    with h5py.File(tmp_path / "maps.h5") as file:
        entry = file["entry"]
        assert file.attrs["default"] == "entry"
        assert entry.attrs["default"] == "time_correlated_variance"
        for name in MAPS:
            group = entry[name]
            assert group.attrs["NX_class"] == "NXdata"
            assert list(group.attrs["axes"]) == ["latent", "y", "x"]
            assert group["data"].shape == (5, 7, 10)
            assert group["data"].dtype == np.float32
            np.testing.assert_array_equal(group["latent_source_index"], load_model(tiny_model_path).latent_order)
            np.testing.assert_array_equal(group["y_pixel"], 7.5 + 8 * np.arange(7))
        process = entry["process"]
        assert process.attrs["NX_class"] == "NXprocess"
        text = {k: v.asstr()[()] for k, v in process.items() if h5py.check_string_dtype(v.dtype)}
        assert text["movie"] == str(movie_path)
        assert text["model_sha256"] == load_model(tiny_model_path).sha256
        assert "analyze" in text["command_line"]
        assert json.loads(text["configuration"])["movie"]["frames"] == [1, None, None]
        assert json.loads(text["movie_shape"]) == [12, 70, 90]
        assert len(json.loads(text["ranks"])) == 2
        assert set(json.loads(text["seconds_by_stage"])) == {"read", "encode", "statistics"}
        assert process["bytes_read"][()] == 11 * 70 * 90 * 2
        assert process["read_amplification"][()] == pytest.approx(70 * 90 / (64 * 88))
    assert "rank  host  process  device" in outcome.text
    assert "read amplification" in outcome.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maps.h5", "maps.html"]


def test_independent_readers_open_the_result(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    from rsciio import nexus  # HyperSpy's reader
    from silx.io import nxdata
    from silx.io import open as silx_open

    hrtemvae("simulate", "-o", "m.h5", "--frames", 4, "--size", 192, 200)
    outcome = hrtemvae("analyze", "m.h5", "--model", tiny_model_path, "--roi", "16:,:", "--step", 16)
    assert outcome.code == 0, outcome.text
    with silx_open(str(tmp_path / "m.maps.h5")) as file:
        default = nxdata.get_default(file)
        assert default.is_valid
        assert default.signal.shape == (5, 11, 12)
        assert default.axes_dataset_names == ["latent", "y", "x"]
        assert default.axes[1].attrs["units"] == "nm"
        np.testing.assert_allclose(default.axes[1][:2], (16 + np.array([7.5, 23.5])) * 0.0145)
        certainty = ("noise", "excess_variance", "change", "significance", "reproducibility")
        for name in (*MAPS, *certainty, "valid_frames", "preview"):
            assert nxdata.NXdata(file[f"entry/{name}"]).is_valid, name
    signals = {s["data"].shape: s for s in nexus.file_reader(str(tmp_path / "m.maps.h5"), nxdata_only=True)}
    latent, y, x = signals[5, 11, 12]["axes"]
    assert (latent["name"], y["name"], x["name"]) == ("latent", "y", "x")
    assert (y["units"], x["scale"]) == ("nm", pytest.approx(16 * 0.0145))


def test_paths_with_unusual_characters(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    folder = tmp_path / "Größe 'é\" $HOME; #1"
    folder.mkdir()
    (folder / "фильм 1.h5").write_bytes(movie_path.read_bytes())
    outcome = hrtemvae("analyze", "фильм 1.h5", "--model", tiny_model_path, cwd=folder)
    assert outcome.code == 0, outcome.text
    outcome = hrtemvae("report", "фильм 1.maps.h5", cwd=folder)
    assert outcome.code == 0, outcome.text


def test_repeating_the_command_does_nothing_and_restart_computes_again(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5"]
    assert hrtemvae(*command).code == 0
    before = (tmp_path / "maps.h5").stat()
    again = hrtemvae(*command)
    assert again.code == 0
    assert "already holds this analysis" in again.text
    assert (tmp_path / "maps.h5").stat() == before
    (tmp_path / "maps.html").unlink()  # as if the run had been killed before its page was drawn
    assert hrtemvae(*command).code == 0
    assert (tmp_path / "maps.html").exists()
    other = hrtemvae(*command, "--step", 4)
    assert other.code == 2
    assert "--restart" in other.text
    assert hrtemvae(*command, "--step", 4, "--restart").code == 0
    assert read_maps(tmp_path / "maps.h5")["mean"].shape == (5, 14, 19)


@pytest.mark.parametrize("tiles", [(1, 1), (9, 9), (2, 1)])
def test_bad_chunks_are_skipped_and_reported(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, tiles: tuple[int, int]
) -> None:
    pixels = drifting_pixels(8, 70, 90)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("m", data=pixels, chunks=(1, 70, 50), compression="gzip")
    break_chunk(tmp_path / "m.h5", "m", 7)  # frame 3, columns 50 to 89
    command = ["analyze", "m.h5", "--model", tiny_model_path, "-o", "maps.h5"]
    skip = ["--on-bad-frame", "skip"]
    assert hrtemvae(*command, *skip, **tiles_of(*tiles)).code == 0
    got = read_maps(tmp_path / "maps.h5")
    touched = np.array([x * 8 + 16 > 50 for x in range(10)])
    assert (got["valid_frames"] == np.where(touched, 7, 8)).all()
    pixels[3, :, 50:] = 0  # a flat corner of a window would not do: leave the frame out
    z, valid = plain_latents(load_model(tiny_model_path), pixels, 8)
    valid &= ~((np.arange(8) == 3)[:, None] & np.tile(touched, 7))
    expected = plain_statistics(z, valid)
    for name in MAPS:
        np.testing.assert_allclose(got[name], expected[name].T.reshape(-1, 7, 10), atol=1e-4, err_msg=name)
    with h5py.File(tmp_path / "maps.h5") as file:
        assert json.loads(file["entry/process/bad_frames"].asstr()[()]) == [3]
    again = hrtemvae(*command, *skip)
    assert (again.code, "already holds" in again.text) == (0, True)
    assert_refused(hrtemvae(*command), "leaves out frames that can't be decoded", "--restart")


def test_maps_do_not_depend_on_threads(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path]
    for threads in (1, 2, 3):
        outcome = hrtemvae(*command, "-o", f"{threads}.h5", threads=threads)
        assert outcome.code == 0, outcome.text
    for threads in (2, 3):
        assert_same_maps(tmp_path / "1.h5", tmp_path / f"{threads}.h5")


def test_work_goes_on_when_nobody_reads_its_output(movie_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = command_line(["analyze", movie_path, "--model", tiny_model_path, "-o", tmp_path / "maps.h5"])
    done = subprocess.run(command, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "maps.h5").is_file()
    assert (tmp_path / "maps.html").is_file()


def test_plan_says_what_would_be_done(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    outcome = hrtemvae("plan", movie_path, "--model", tiny_model_path, ranks=2)
    assert outcome.code == 0, outcome.text
    for words in ("12 frames of 70 x 90, uint16", "chunks of 1 x 70 x 90, gzip", "7 x 10", "2 ranks", "estimate"):
        assert words in outcome.text
    assert outcome.text.count("\n   0 ") == outcome.text.count("\n   1 ") == 1
    assert list(tmp_path.iterdir()) == []


def test_frame_scaling_and_filters_do_not_depend_on_the_tiling(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "--scaling", "frame", "--low-pass", "--clip-outliers"]
    assert hrtemvae(*command, "-o", "one.h5").code == 0
    assert hrtemvae(*command, "-o", "three.h5", ranks=3).code == 0
    assert_same_maps(tmp_path / "one.h5", tmp_path / "three.h5")


@pytest.mark.gpu
@pytest.mark.parametrize("scaling", ["window", "frame"])
def test_on_a_gpu_threads_and_ranks_do_not_change_the_maps(hrtemvae: Program, tmp_path: Path, scaling: str) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        pixels = drifting_pixels(40, 300, 340)
        file.create_dataset("m", data=pixels, chunks=(1, 300, 340), compression="gzip")
    command = ("analyze", "m.h5", "--scaling", scaling)
    for name, ranks, threads in (("one.h5", None, 1), ("two.h5", None, 2), ("ranks.h5", 2, 2)):
        outcome = hrtemvae(*command, "-o", name, ranks=ranks, threads=threads)
        assert outcome.code == 0, outcome.text
        assert "cuda:0" in outcome.text
        assert_same_maps(tmp_path / "one.h5", tmp_path / name)
    without_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    assert hrtemvae(*command, "-o", "cpu.h5", threads=2, variables=without_gpu).code == 0
    gpu, cpu = read_maps(tmp_path / "one.h5"), read_maps(tmp_path / "cpu.h5")
    for name in MAPS:
        assert np.linalg.norm(gpu[name] - cpu[name]) < 1e-3 * np.linalg.norm(cpu[name]), name

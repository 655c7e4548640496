"""Movies at another scale than the model's: warned about, and resampled on request."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import Program
from conftest import MAPS, TINY, assert_refused, assert_same_maps, drifting_pixels, random_model, read_maps

from hrtemvae_hpc.analysis import lattice
from hrtemvae_hpc.analysis.lattice import lattice_period
from hrtemvae_hpc.area import Area
from hrtemvae_hpc.model.model_file import TrainedOn, save_model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.resample import Resampler, scaled_shape
from hrtemvae_hpc.movie.write import write_movie


def calibrated(path: Path, pixels: np.ndarray, size_nm: float) -> Path:
    write_movie(path, iter(pixels), pixels.shape, pixels.dtype, size_nm, 1.0, {})
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scaled") / "model.safetensors"
    save_model(dataclasses.replace(random_model(TINY), trained_on=TrainedOn(0.02)), path)
    return path


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fringes of 7 pixels at 0.04 nm per pixel."""
    return calibrated(tmp_path_factory.mktemp("fine") / "fine.h5", drifting_pixels(8, 70, 90), 0.04)


def test_resampled_frames_give_the_maps_of_a_movie_at_that_scale(
    hrtemvae: Program, fine: Path, model_path: Path, tmp_path: Path
) -> None:
    outcome = hrtemvae("analyze", fine, "--model", model_path, "--resample", "model", "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    assert "resampled to 140 x 180, 4 times the windows" in outcome.text
    frames = torch.from_numpy(drifting_pixels(8, 70, 90).astype(np.float32))
    larger = torch.stack([Resampler(70, 90, (140, 180)).whole(f) for f in frames]).numpy()
    calibrated(tmp_path / "larger.h5", larger, 0.02)
    assert hrtemvae("analyze", "larger.h5", "--model", model_path, "-o", "expected.h5").code == 0
    found, expected = read_maps(tmp_path / "maps.h5"), read_maps(tmp_path / "expected.h5")
    for name in ("mean", "variance"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(found["spearman"], expected["spearman"], atol=0.06)
    with h5py.File(tmp_path / "maps.h5") as one, h5py.File(tmp_path / "expected.h5") as other:
        for axis in ("y", "x"):  # a pixel's centre lies a quarter of a large pixel from that of a small one
            own, small = (f[f"entry/{MAPS[0]}/{axis}"][...] for f in (one, other))
            np.testing.assert_allclose(own, small - 0.25 * 0.04, atol=1e-9)


def test_resampling_does_not_depend_on_ranks_and_tiles(
    hrtemvae: Program, fine: Path, model_path: Path, tmp_path: Path
) -> None:
    options = ("--model", model_path, "--resample", "1.7", "--step", 4)
    assert hrtemvae("analyze", fine, *options, "-o", "alone.h5").code == 0
    outcome = hrtemvae("analyze", fine, *options, "-o", "ranks.h5", ranks=3)
    assert outcome.code == 0, outcome.text
    assert_same_maps(tmp_path / "alone.h5", tmp_path / "ranks.h5")


def test_what_does_not_fit_is_warned_about(hrtemvae: Program, fine: Path, model_path: Path, tmp_path: Path) -> None:
    text = hrtemvae("plan", fine, "--model", model_path).text
    assert "the frames have 0.04 nm/pixel, but the model was trained at 0.02" in text
    assert "4 times the windows" in text
    assert (
        "but the model was trained at" not in hrtemvae("plan", fine, "--model", model_path, "--resample", "model").text
    )
    far = calibrated(tmp_path / "far.h5", drifting_pixels(8, 128, 128), 0.0145)
    text = hrtemvae("plan", far).text
    assert "median period 7.0 pixels; the model reconstructs periods of 14 to 27 pixels" in text
    assert "lies outside the range that the model reconstructs (14 to 27); --resample 2.8 would bring it inside" in text


def test_bad_input(hrtemvae: Program, movie_path: Path, tiny_model_path: Path, model_path: Path) -> None:
    assert_refused(hrtemvae("plan", movie_path, "--model", model_path, "--resample", "model"), "no pixel size")
    assert_refused(hrtemvae("plan", movie_path, "--model", tiny_model_path, "--resample", "wide"), "--resample")
    assert_refused(hrtemvae("plan", movie_path, "--model", tiny_model_path, "--resample", "0.1"), "--resample")


def test_known_scale_and_unknown_model(hrtemvae: Program, fine: Path, tiny_model_path: Path) -> None:
    refused = hrtemvae("plan", fine, "--model", tiny_model_path, "--resample", "model")
    assert_refused(refused, "has no pixel size to scale to")


def test_frames_that_are_not_decoded_are_left_out_of_resampled_windows(
    hrtemvae: Program, fine: Path, model_path: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(fine.read_bytes())
    with h5py.File(broken, "r") as file:
        info = file["entry/data/data"].id.get_chunk_info(3)
    with broken.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\0" * info.size)
    options = ("--model", model_path, "--resample", "2", "--on-bad-frame", "skip")
    outcome = hrtemvae("analyze", broken, *options, "-o", "maps.h5")
    assert outcome.code == 0, outcome.text
    assert (read_maps(tmp_path / "maps.h5")["valid_frames"] == 7).all()


def note_reads(movie: Movie, monkeypatch: pytest.MonkeyPatch) -> list[tuple[slice, Area]]:
    """What is read of ``movie`` from now on."""
    reads: list[tuple[slice, Area]] = []
    read = movie.read

    def noted(frames: slice, area: Area) -> np.ndarray:
        reads.append((frames, area))
        return read(frames, area)

    monkeypatch.setattr(movie, "read", noted)
    return reads


@pytest.mark.parametrize("factor", [None, 1.5])
def test_where_a_frame_costs_much_a_few_windows_give_its_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float | None
) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("m", data=drifting_pixels(8, 320, 320), chunks=(8, 16, 16), compression="gzip")
    with Movie(tmp_path / "m.h5") as movie:
        resampler = Resampler(320, 320, scaled_shape(320, 320, factor)) if factor else None
        period, share = lattice_period(movie, 32, resampler)
        monkeypatch.setattr(lattice, "_MUCH", (0.1, 0))
        reads = note_reads(movie, monkeypatch)
        few = lattice_period(movie, 32, resampler)
    assert period == pytest.approx(7 * (factor or 1), rel=0.1)
    assert few == pytest.approx((period, share), rel=0.1)
    assert len(reads) == 32
    assert len({area.rows.start for _, area in reads}) > 4
    assert len({area.columns.start for _, area in reads}) > 4


def test_a_deep_chunk_of_whole_frames_is_decoded_once_for_its_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("m", data=drifting_pixels(8, 320, 320), chunks=(8, 320, 320), compression="gzip")
    with Movie(tmp_path / "m.h5") as movie:
        monkeypatch.setattr(lattice, "_MUCH", (0.1, 0))
        reads = note_reads(movie, monkeypatch)
        lattice_period(movie, 32, None)
    assert len(reads) == 1

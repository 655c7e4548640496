"""Networks without padding on pixels scaled locally: every layer shared, and all commands, against plain loops."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from commands import Program
from conftest import assert_refused, assert_same_maps, drifting_pixels, random_model, read_maps
from damage import break_chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_latents, plain_statistics
from small_training import configure, simulate

from hrtemvae_hpc.model.architecture import Architecture, Normalization
from hrtemvae_hpc.model.model_file import Model, load_model, save_model
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.layers import folded
from hrtemvae_hpc.windows.valid import ValidConvolutions

NETWORK = Architecture(window=16, channels=(4, 6), kernel=3, stride=(2, 1), padding="valid", hidden=24, latents=5)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("valid") / "valid.safetensors"
    save_model(dataclasses.replace(random_model(NETWORK), scaling="local"), path)
    return path


@pytest.fixture(scope="module")
def model(model_path: Path) -> Model:
    return load_model(model_path)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 5),
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
    step=st.integers(1, 20),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    more=st.integers(0, 5),
    normalization=st.sampled_from(["none", "before_activation", "after_activation"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_convolutions_of_a_frame_are_those_of_each_window(
    kernel: int,
    strides: tuple[int, ...],
    step: int,
    extra: tuple[int, int],
    more: int,
    normalization: Normalization,
    dtype: torch.dtype,
) -> None:
    window = 1
    for stride in reversed(strides):
        window = (window - 1) * stride + kernel
    window = max(4, window + more)
    channels = tuple(range(2, 2 + len(strides)))
    architecture = Architecture(
        window=window, channels=channels, kernel=kernel, stride=strides, padding="valid", normalization=normalization
    )
    exact = folded(random_model(architecture).encoder)
    frames = torch.rand(2, window + extra[0], window + extra[1], generator=torch.Generator().manual_seed(0)).to(dtype)
    cut = frames.unfold(1, window, step).unfold(2, window, step).reshape(-1, 1, window, window)
    with torch.inference_mode():
        plain = exact.layers(cut.float(), 0, len(channels))
        shared = ValidConvolutions(exact.to(dtype), step).windows(frames)
    assert shared.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6 * len(channels)
    torch.testing.assert_close(shared.float(), plain, rtol=0, atol=tolerance * max(1.0, float(plain.abs().max())))


@pytest.mark.parametrize("step", [2, 3, 8, 20])
def test_the_engine_agrees_with_a_plain_loop(model: Model, step: int) -> None:
    pixels = np.random.default_rng(0).random((3, 50, 44)).astype(np.float32)
    engine = Engine(model, torch.device("cpu"), "fp32", "local", step)
    z, valid = engine.encode(pixels, np.ones((3, 1), bool))
    cut = torch.from_numpy(pixels).unfold(1, 16, step).unfold(2, 16, step).reshape(-1, 1, 16, 16)
    expected = model.encoder(cut)[0][:, list(model.latent_order)].view(z.shape)
    assert valid.all()
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)


def write_movie(path: Path, pixels: np.ndarray, **storage: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=pixels, **storage)
    return path


@pytest.mark.parametrize("ranks", [None, 2, 4])
def test_agrees_with_a_plain_loop(
    hrtemvae: Program, tmp_path: Path, model: Model, model_path: Path, ranks: int | None
) -> None:
    pixels = drifting_pixels(8, 60, 56).astype(np.float32)
    pixels[2, 10, 10] = np.nan
    pixels[3:, :25, 30:] = 7  # flat from the fourth frame on
    write_movie(tmp_path / "m.h5", pixels)
    words = ("analyze", "m.h5", "--model", model_path, "--step", 5, "--roi", "2:,:54", "--drift", "none")
    tiles = {"HRTEMVAE_TILES": "1x1"}
    outcome = hrtemvae(*words, ranks=ranks, script="paced.py", variables=tiles)
    assert outcome.code == 0, outcome.text
    z, valid = plain_latents(model, pixels[:, 2:, :54], 5)
    expected, got = plain_statistics(z, valid), read_maps(tmp_path / "m.maps.h5")
    assert 0 < valid.sum() < valid.size
    shape = got["valid_frames"].shape
    np.testing.assert_array_equal(got["valid_frames"].ravel(), valid.sum(0))
    for name in ("mean", "variance"):
        np.testing.assert_allclose(got[name], expected[name].T.reshape(-1, *shape), atol=1e-5, err_msg=name)
    assert hrtemvae(*words, "-o", "alone.h5").code == 0
    assert_same_maps(tmp_path / "m.maps.h5", tmp_path / "alone.h5")


def test_what_can_not_be_decoded_spoils_no_window_beside_it(
    hrtemvae: Program, tmp_path: Path, model: Model, model_path: Path
) -> None:
    pixels = drifting_pixels(6, 64, 96)
    path = write_movie(tmp_path / "m.h5", pixels, chunks=(1, 64, 32), compression="gzip")
    break_chunk(path, "m", 9)  # frame 3, columns 0 to 31
    words = ("analyze", path, "--model", model_path, "--on-bad-frame", "skip", "--drift", "none", "-o", "maps.h5")
    outcome = hrtemvae(*words)
    assert outcome.code == 0, outcome.text
    known = pixels.astype(float)
    known[3, :, :32] = np.nan
    z, valid = plain_latents(model, known, 8)
    expected, got = plain_statistics(z, valid), read_maps(tmp_path / "maps.h5")
    np.testing.assert_array_equal(got["valid_frames"].ravel(), valid.sum(0))
    assert set(got["valid_frames"].ravel()) == {5, 6}
    shape = got["valid_frames"].shape
    np.testing.assert_allclose(got["variance"], expected["variance"].T.reshape(-1, *shape), atol=1e-5)


def test_a_drift_is_followed(hrtemvae: Program, tmp_path: Path, model: Model, model_path: Path) -> None:
    scene, moves = drifting_pixels(6, 90, 90), [(0, 0), (1, -2), (2, -3), (4, -3), (5, -5), (7, -6)]
    seen = np.stack([image[15 - dy : 75 - dy, 15 - dx : 75 - dx] for image, (dy, dx) in zip(scene, moves, strict=True)])
    write_movie(tmp_path / "m.h5", seen)
    lines = [f"{t},,{dy},{dx},1" for t, (dy, dx) in enumerate(moves)]
    (tmp_path / "drift.csv").write_text("\n".join(["frame,time_s,dy_px,dx_px,quality", *lines, ""]))
    words = ("analyze", "m.h5", "--model", model_path, "--drift", "drift.csv", "-o", "maps.h5")
    assert hrtemvae(*words).code == 0
    followed = np.full((6, 60, 60), np.nan)
    for frame, image, (dy, dx) in zip(followed, seen, moves, strict=True):
        rows, columns = (slice(max(0, -d), 60 - max(0, d)) for d in (dy, dx))
        frame[rows, columns] = np.roll(image, (-dy, -dx), (0, 1))[rows, columns]
    z, valid = plain_latents(model, followed, 8)
    expected, got = plain_statistics(z, valid), read_maps(tmp_path / "maps.h5")
    np.testing.assert_array_equal(got["valid_frames"].ravel(), valid.sum(0))
    shape = got["valid_frames"].shape
    np.testing.assert_allclose(got["variance"], expected["variance"].T.reshape(-1, *shape), atol=1e-5)


@pytest.mark.parametrize(("step", "advised"), [(2, ""), (1, ""), (3, "--step 4"), (4, "")])
def test_a_step_that_shares_less_is_pointed_out(
    hrtemvae: Program, tmp_path: Path, model_path: Path, step: int, advised: str
) -> None:
    write_movie(tmp_path / "m.h5", drifting_pixels(6, 60, 70))
    outcome = hrtemvae("plan", "m.h5", "--model", model_path, "--step", step)
    assert outcome.code == 0, outcome.text
    assert outcome.text.count("take the convolutions of a frame") == bool(advised)
    if advised:
        assert "of a frame 4 times" in outcome.text
        assert advised in outcome.text


def test_a_movie_is_resampled_first(hrtemvae: Program, tmp_path: Path, model_path: Path) -> None:
    write_movie(tmp_path / "m.h5", drifting_pixels(6, 60, 70))
    words = ("analyze", "m.h5", "--model", model_path, "--resample", "1.5", "--drift", "none")
    assert hrtemvae(*words, "-o", "one.h5").code == 0
    assert hrtemvae(*words, "-o", "two.h5", ranks=2, script="paced.py", variables={"HRTEMVAE_TILES": "1x1"}).code == 0
    assert_same_maps(tmp_path / "one.h5", tmp_path / "two.h5")


def test_a_model_is_trained_and_used_as_its_segments_were_scaled(hrtemvae: Program, tmp_path: Path) -> None:
    simulate(hrtemvae, tmp_path / "window.h5", 60)
    words = ("segments", "--simulated", 200, "--window", 16, "--scaling", "local", "-o", "local.h5")
    assert hrtemvae(*words).code == 0
    config = configure(tmp_path, tmp_path / "local.h5", 15)
    changed = {"hidden: 16": "hidden: 16, kernel: 3, stride: [2, 1], padding: valid", "rate: 0.01": "rate: 0.003"}
    for old, new in changed.items():
        config.write_text(config.read_text().replace(old, new))
    train = ("train", config, "-o", "model.safetensors")
    assert_refused(hrtemvae(*train, "--segments", "window.h5"), "scaled by itself", "--scaling local")
    assert_refused(hrtemvae(*train, "--segments", "local.h5", "window.h5"), "window.h5", "the same --scaling")
    outcome = hrtemvae(*train)
    assert outcome.code == 0, outcome.text
    model = load_model(tmp_path / "model.safetensors")
    assert (model.scaling, model.architecture.padding, model.architecture.strides) == ("local", "valid", (2, 1))
    assert hrtemvae("model", "evaluate", "model.safetensors", "--segments", "local.h5").code == 0
    refused = hrtemvae("model", "evaluate", "model.safetensors", "--segments", "window.h5")
    assert_refused(refused, "window.h5", "--scaling local")
    write_movie(tmp_path / "m.h5", drifting_pixels(6, 60, 70))
    analyze = ("analyze", "m.h5", "--model", "model.safetensors")
    assert hrtemvae(*analyze).code == 0
    with h5py.File(tmp_path / "m.maps.h5") as file:
        recorded = file["entry/process/configuration"].asstr()[()]
    assert json.loads(recorded)["windows"]["scaling"] == "local"
    assert_refused(hrtemvae(*analyze, "--scaling", "window", "-o", "other.h5"), "--scaling local or frame")

"""Judging a model: on lattices that move, by its reconstruction, next to another."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Program
from conftest import assert_refused, random_model

from hrtemvae_hpc.evaluation.evaluate import Evaluation
from hrtemvae_hpc.evaluation.movements import overlap, respond, similarity
from hrtemvae_hpc.evaluation.traversal import RANGE, traverse
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.maps.verdict import find_verdicts, roc_area
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.model.model_file import Model, load_model, save_model
from hrtemvae_hpc.model.network import Decoder, Encoder
from hrtemvae_hpc.simulation.changes import CHANGES
from hrtemvae_hpc.simulation.movements import MOVEMENTS, PERIOD, SIZE, frames, still_inside

# Of 64 latents, how many hold more than half of the variance of each movement, and how much these sets overlap.
LEADING_AT_MOST = {"translation along y": 4, "translation along x": 3}
ROTATION_AT_MOST = {"published": 12, "dense": 20}
OVERLAP_AT_MOST = 0.3
COARSE = "coarse_evaluation.py"
SMALL = Architecture(
    window=16,
    channels=(4, 6),
    hidden=24,
    latents=6,
    decoder=DecoderArchitecture(base_channels=4, channels=(4, 4)),
)


def small_model(seed: int, latents: int = 6) -> Model:
    torch.manual_seed(seed)
    architecture = SMALL.model_copy(update={"latents": latents})
    assert architecture.decoder is not None
    encoder, decoder = Encoder(architecture), Decoder(architecture, architecture.decoder)
    encoder.mean.weight.data *= 30  # so that latents count as active
    order = tuple(torch.randperm(latents).tolist())
    return Model(f"small{seed}", encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False), order)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = []
    for seed, latents in ((0, 6), (1, 3)):
        paths.append(folder / f"m{seed}.safetensors")
        save_model(small_model(seed, latents), paths[-1])
    return paths


def test_the_lattice_is_the_one_of_the_article() -> None:
    first, *_, last = frames(MOVEMENTS[0])
    assert first.shape == (SIZE, SIZE)
    # Dark spots on bright ground, every 20.5 pixels, on the patch alone.
    middle = first[200:440, 200:440]
    spectrum = abs(np.fft.rfft2(middle - middle.mean(), (SIZE, SIZE)))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert SIZE / math.hypot(min(row, SIZE - row), column) == pytest.approx(PERIOD, rel=0.03)
    assert first[:90].min() == first.max()
    # After one period it looks as before, except for the jitter of 0.05 pixel.
    contrast = np.ptp(first[170:470, 170:470])
    assert abs(first[170:470, 170:470] - last[170:470, 170:470]).max() < 0.15 * contrast
    halfway = list(frames(MOVEMENTS[0]))[12]
    assert abs(first[170:470, 170:470] - halfway[170:470, 170:470]).max() > 0.5 * contrast


def test_a_rotation_by_90_degrees_ends_as_it_began() -> None:
    first, *_, last = frames(MOVEMENTS[2])
    np.testing.assert_allclose(last[150:490, 150:490], np.rot90(first[150:490, 150:490]), atol=1e-3)


def test_windows_inside_hold_lattice_in_every_frame() -> None:
    inside = still_inside(64, 16)
    assert inside.sum() > 50
    for movement in MOVEMENTS:
        for frame in frames(movement):
            windows = np.lib.stride_tricks.sliding_window_view(frame, (64, 64))[::16, ::16]
            for part in (windows[..., :24, :], windows[..., 40:, :], windows[..., :24], windows[..., 40:]):
                assert (np.ptp(part[inside], axis=(1, 2)) > 0.02).all()


def test_response_is_that_of_a_plain_loop() -> None:
    model = random_model(Architecture(window=32, channels=(4, 6), hidden=24, latents=5))
    response = respond(model, MOVEMENTS[0], PERIOD, 64)
    z = []
    for frame in frames(MOVEMENTS[0]):
        window = frame[256:288, 256:288]
        scaled = torch.from_numpy((window - window.min()) / (window.max() - window.min()))
        z.append(model.encoder(scaled[None, None])[0][0].numpy()[list(model.latent_order)])
    np.testing.assert_allclose(response.variance[:, 4, 4], np.var(z, axis=0), rtol=1e-4, atol=1e-9)
    assert response.inside[4, 4]
    total = response.variance[:, response.inside].sum(1)
    np.testing.assert_allclose(response.share, total / total.sum(), rtol=1e-6)
    assert 0.5 < response.explained <= 1
    assert response.explained - response.share[response.leading[-1]] <= 0.5


def test_overlap_and_similarity() -> None:
    assert overlap([1, 2], [2, 3, 4]) == 0.25
    assert overlap([1], [2]) == 0
    assert similarity(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == 0
    assert similarity(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == pytest.approx(1)


def test_traversal_changes_one_latent() -> None:
    model = small_model(0)
    assert model.decoder is not None
    window = np.random.default_rng(0).random((16, 16), np.float32)
    decoded = traverse(model, window, [5, 2])
    z = model.encoder(torch.from_numpy(window)[None, None])[0]
    z[0, model.latent_order[2]] = RANGE[3]
    np.testing.assert_allclose(decoded[1, 3], torch.sigmoid(model.decoder(z))[0, 0].numpy(), rtol=1e-5)


def test_commands(hrtemvae: Program, models: list[Path], tmp_path: Path) -> None:
    assert hrtemvae("segments", "--simulated", 60, "--window", 16, "-o", "a.h5").code == 0
    assert hrtemvae("segments", "--simulated", 60, "--window", 16, "--seed", 1, "-o", "b.h5").code == 0
    outcome = hrtemvae("model", "evaluate", models[0], "--segments", "a.h5", "--store", script=COARSE)
    assert outcome.code == 0, outcome.text
    assert (tmp_path / "m0.html").stat().st_size > 100_000
    numbers = json.loads((tmp_path / "m0.json").read_text())
    assert numbers["reconstruction"]["loss"] > numbers["reconstruction"]["floor"]
    assert set(numbers["movements"]) == {m.name for m in MOVEMENTS}
    stored = {name: list(latents) for name, latents in load_model(models[0]).groups.items()}
    assert stored == {name: group["latents"] for name, group in numbers["groups"].items()}
    assert set(stored) == set(CHANGES)
    for name, latents in stored.items():
        assert f"group {name}: {' '.join(f'z{i}' for i in latents)}\n" in outcome.text
    outcome = hrtemvae("model", "traverse", models[0], "--segments", "a.h5", "--index", 2, "--latents", 0, 3)
    assert outcome.code == 0, outcome.text
    assert (tmp_path / "m0.traversal.png").exists()
    outcome = hrtemvae("model", "compare", *models, "--segments", "a.h5", "-o", "models.html", script=COARSE)
    assert outcome.code == 0, outcome.text
    page = (tmp_path / "models.html").read_text()
    assert "mean correlation" in page
    assert "Against the number of latents" in page
    outcome = hrtemvae("model", "compare", models[0], "--segments", "a.h5", "b.h5", "-o", "data.html", script=COARSE)
    assert outcome.code == 0, outcome.text
    basis = json.loads((tmp_path / "data.json").read_text())["basis"]
    assert 0 <= basis["similarity of the spectra of variance"] <= 1


def test_bad_input(hrtemvae: Program, models: list[Path], tmp_path: Path, tiny_model_path: Path) -> None:
    assert hrtemvae("segments", "--simulated", 60, "-o", "wide.h5").code == 0
    assert_refused(hrtemvae("model", "evaluate", models[0], "--segments", "wide.h5"), "wide.h5", "64 x 64")
    assert_refused(hrtemvae("model", "evaluate", models[0], "--period", 1), "--period")
    assert_refused(hrtemvae("model", "evaluate", "--store"), "--store", "name a model file of your own")
    assert_refused(hrtemvae("model", "traverse", tiny_model_path), "no decoder")
    assert_refused(hrtemvae("model", "traverse", models[0], "--latents", 6), "z0 to z5")
    assert_refused(hrtemvae("model", "compare", models[0]), "two models")


def test_the_dense_model_shows_what_happens_in_the_demo(hrtemvae: Program, tmp_path: Path) -> None:
    """As `make demo` does with the published one."""
    assert hrtemvae("simulate", "-o", "movie.h5", "--frames", 16).code == 0
    words = ("--model", "dense", "--step", 16, "--clip-outliers", "-o", "maps.h5")
    outcome = hrtemvae("analyze", "movie.h5", *words, threads=2)
    assert outcome.code == 0, outcome.text
    with open_result(tmp_path / "maps.h5") as result:
        verdicts = find_verdicts(result)
    assert [v.region for v in verdicts] == ["rotating crystal", "growing edge", "shrinking edge"]
    for verdict in verdicts:
        assert verdict.together > 0.98
        assert verdict.latent_still > 0.95
        assert verdict.latent_others > 0.8
        assert f"<td>{verdict.together:.3f}</td>" in (tmp_path / "maps.html").read_text()


def test_area_under_the_roc_curve() -> None:
    inside, outside = np.array([3.0, 1.0, 2.0, np.nan]), np.array([2.0, 0.0])
    # Of six pairs, 3 > 2, 3 > 0, 1 > 0, 2 > 0, and 2 against 2 counts half.
    assert roc_area(inside, outside) == pytest.approx(4.5 / 6)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_separate_the_movements(name: str) -> None:
    model = load_model(name)
    responses = [respond(model, movement, PERIOD, 64) for movement in MOVEMENTS]
    for response in responses:
        most = LEADING_AT_MOST.get(response.movement.name, ROTATION_AT_MOST[name])
        assert len(response.leading) <= most
        if response.movement.degrees == 0:
            assert response.return_error < 0.02
    evaluation = Evaluation(model, None, PERIOD, responses, [])
    assert all(leading <= OVERLAP_AT_MOST for _, _, leading, _ in evaluation.overlaps)
    assert evaluation.active is not None
    assert evaluation.active >= 30
    assert model.trained_on.pixel_size_nm == pytest.approx(0.0145)

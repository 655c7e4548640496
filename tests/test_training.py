"""Training: the same for any number of ranks, and a model in use that only a better one replaces."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Program, command_line, environment
from conftest import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr
from small_training import configure, losses, simulate

from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.processor import has_bfloat16
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.training.batches import augment, epoch_order, generator, share
from hrtemvae_hpc.training.objective import beta_at, divergence, entropy_floor, learning_rate_at
from hrtemvae_hpc.training.train_config import AugmentationSection, LossSection


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    # Batches of 12 leave a last batch of 1: less than one per rank.
    folder = tmp_path_factory.mktemp("segments")
    return simulate(run_in(folder), folder / "segments.h5", 268)


@pytest.fixture(scope="module")
def undisturbed(segments: Path, tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = run_in(folder)("train", configure(folder, segments))
    assert outcome.code == 0, outcome.text
    return folder


def assert_close(folder: Path, other: Path) -> None:
    for epoch, (one, two) in enumerate(zip(losses(folder), losses(other), strict=True)):
        for name in one:  # rounding grows from step to step
            assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-5 * 10**epoch, abs=1e-5), (epoch, name)


def test_a_training_leaves_a_model_losses_and_pictures(undisturbed: Path) -> None:
    model = load_model(undisturbed / "train.safetensors")
    assert model.architecture.latents == 4
    assert model.trained_on.pixel_size_nm == pytest.approx(0.0145)
    variance = np.array(model.provenance["variance_over_training"])[list(model.latent_order)]
    assert (np.diff(variance) >= 0).all()
    assert [int(row["epoch"]) for row in losses(undisturbed)] == [1, 2, 3, 4]
    left = {p.name for p in (undisturbed / "train.safetensors.training").iterdir()}
    mark = ".hrtemvae-training"
    assert left == {mark, "best.safetensors", "losses.csv", "losses.png", "reconstructions-0004.png"}


def test_done_is_done(hrtemvae: Program, undisturbed: Path) -> None:
    before = (undisturbed / "train.safetensors").stat().st_mtime_ns
    outcome = hrtemvae("train", undisturbed / "train.yaml", cwd=undisturbed)
    assert outcome.code == 0
    assert "already is the model of this training" in outcome.text
    assert (undisturbed / "train.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_number_of_ranks_changes_only_rounding(
    hrtemvae: Program, undisturbed: Path, segments: Path, tmp_path: Path, ranks: int
) -> None:
    outcome = hrtemvae("train", configure(tmp_path, segments), ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert_close(tmp_path, undisturbed)


def test_torchrun(undisturbed: Path, segments: Path, tmp_path: Path) -> None:
    command = ["torchrun", "--nproc-per-node=2", "--no-python", *command_line(["train", configure(tmp_path, segments)])]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_close(tmp_path, undisturbed)


def test_losses_that_are_not_finite_name_the_epoch_and_keep_the_last_good(
    hrtemvae: Program, segments: Path, tmp_path: Path
) -> None:
    path = configure(tmp_path, segments, 4)
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 1.0e+9"))
    outcome = hrtemvae("train", path)
    assert_refused(outcome, "not finite in epoch", "learning_rate")


def test_a_retraining_that_learns_nothing_leaves_the_old_model(
    hrtemvae: Program, undisturbed: Path, segments: Path, tmp_path: Path
) -> None:
    old = (undisturbed / "train.safetensors").read_bytes()
    (tmp_path / "train.safetensors").write_bytes(old)
    path = configure(tmp_path, segments, 3)
    path.write_text(path.read_text().replace("beta: 0.0001", "beta: 1000.0"))
    assert_refused(hrtemvae("train", path), "learned nothing")
    assert (tmp_path / "train.safetensors").read_bytes() == old


def test_init_early_stopping_and_tensorboard(
    hrtemvae: Program, undisturbed: Path, segments: Path, tmp_path: Path
) -> None:
    path = configure(tmp_path, segments, 60, "run: {tensorboard: true}\nmodel: {name: fine, weights: fp16}\n")
    path.write_text(
        path.read_text()
        .replace("epochs: 60", "epochs: 60, early_stopping: 1")
        .replace("learning_rate: 0.01", "learning_rate: 0.003")
    )
    outcome = hrtemvae("train", path, "--init", undisturbed / "train.safetensors")
    assert outcome.code == 0, outcome.text
    rows = losses(tmp_path)
    assert len(rows) < 60
    assert float(rows[0]["reconstruction"]) < float(losses(undisturbed)[0]["reconstruction"])
    model = load_model(tmp_path / "train.safetensors")
    assert (model.name, model.provenance["initial_model_sha256"]) == (
        "fine", load_model(undisturbed / "train.safetensors").sha256,
    )  # fmt: skip
    assert list((tmp_path / "train.safetensors.training/tensorboard").iterdir())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bf16_is_advised_against_where_it_is_slow(
    hrtemvae: Program, segments: Path, tmp_path: Path, precision: str
) -> None:
    path = configure(tmp_path, segments, 1)
    path.write_text(path.read_text().replace("epochs: 1", f"epochs: 1, precision: {precision}"))
    text = hrtemvae("train", path).text
    assert ("no bfloat16 instructions" in text) == (precision == "bf16" and not has_bfloat16())


def test_bad_input(hrtemvae: Program, undisturbed: Path, segments: Path, tmp_path: Path) -> None:
    wide = simulate(hrtemvae, tmp_path / "wide.h5", 40, window=24)
    path = configure(tmp_path, segments)
    assert_refused(hrtemvae("train", path, "--segments", wide), "wide.h5", "24 x 24")
    assert_refused(hrtemvae("train", path, "--segments", tmp_path / "none.h5"), "none.h5", "no such")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(segments.read_bytes()[:-3000])
    assert_refused(hrtemvae("train", path, "--segments", cut), "cut.h5")
    single = tmp_path / "train.safetensors.training"
    assert not single.exists()
    single.mkdir()
    (single / ".hrtemvae-training").touch()
    (single / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    assert_refused(hrtemvae("train", path), "checkpoint.safetensors", "--restart")
    plain = tmp_path / "plain.yaml"
    plain.write_text("network: {latents: 3, decoder: null}\n")
    assert_refused(hrtemvae("train", plain, "--segments", segments), "network", "needs a decoder")
    plain.write_text("network: {latents: 3}\n")  # with the decoder's defaults, so that only the window is wrong
    assert_refused(hrtemvae("train", plain, "--segments", segments, "--latents", 5), "16 x 16")
    assert_refused(hrtemvae("train", path, "-o", segments), "is itself one of the inputs")
    path.write_text(path.read_text() + "optimiser: {}\n")
    assert_refused(hrtemvae("train", path), "optimiser", "configs/train.yaml")


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 9), st.integers(0, 50))
def test_each_segment_is_shown_once_an_epoch(count: int, batch: int, ranks: int, epoch: int) -> None:
    order = epoch_order(np.arange(count), 3, epoch)
    shown = []
    for start in range(0, count, batch):
        whole = order[start : start + batch]
        for rank in range(ranks):
            shown += whole[share(len(whole), rank, ranks)].tolist()
    assert sorted(shown) == list(range(count))
    assert shown == order.tolist()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 1000), st.sampled_from(["window", "local"]))
def test_augmentation_does_not_depend_on_the_ranks(batch: int, ranks: int, seed: int, scaling: Scaling) -> None:
    section = AugmentationSection(turn=True, flip=True, noise=0.1, contrast=0.5)
    x = torch.rand(batch, 1, 8, 8)
    cpu = torch.device("cpu")
    whole = augment(x, batch, slice(0, batch), section, generator(cpu, seed), scaling)
    parts = [share(batch, rank, ranks) for rank in range(ranks)]
    together = torch.cat([augment(x[p], batch, p, section, generator(cpu, seed), scaling) for p in parts])
    assert torch.equal(whole, together)
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_divergence_and_floor_agree_with_references() -> None:
    torch.manual_seed(0)
    mean, log_var = torch.randn(7, 5), torch.randn(7, 5)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, torch.exp(log_var / 2)), normal(torch.zeros(()), 1)).sum()
    assert float(divergence(mean, log_var)) == pytest.approx(float(expected), rel=1e-5)
    x = torch.rand(3, 1, 4, 4)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    assert float(entropy_floor(x)) == pytest.approx(float((entr(x.numpy()) + entr(1 - x.numpy())).sum()), rel=1e-5)


def test_schedules() -> None:
    loss = LossSection(beta=2.0, first=0.5, hold=1.0, warm_up=2.0)
    assert [beta_at(e, loss) for e in (0, 1, 2, 3, 9)] == [0.5, 0.5, 1.25, 2.0, 2.0]
    rates = [learning_rate_at(step, 100, 1e-3, 0.1) for step in range(100)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 10
    expected = torch.optim.lr_scheduler.CosineAnnealingLR
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1e-3)
    schedule = expected(optimizer, 90)
    for rate in rates[10:]:
        assert rate == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        schedule.step()


@pytest.mark.gpu
def test_on_a_gpu_a_seed_decides_the_model(
    hrtemvae: Program, segments: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trained = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("gpu")
        outcome = hrtemvae("train", configure(folder, segments), cwd=folder)
        assert outcome.code == 0, outcome.text
        assert load_model(folder / "train.safetensors").provenance["device"].startswith("cuda")
        trained.append(losses(folder))
    assert trained[0] == trained[1]

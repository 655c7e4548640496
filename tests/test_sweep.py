"""A sweep over the number of latents: the trainings it consists of, its page, and what it finds."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Program
from conftest import assert_refused
from small_training import configure, losses, simulate, weights

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.evaluation.sweep import TOLERANCE, smallest_sufficient
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.training import sweep as sweeping
from hrtemvae_hpc.training.train_config import TrainConfig

SWEEP = ("train", "train.yaml", "--sweep-latents", 6, 4)


def numbers(folder: Path) -> Any:
    return json.loads((folder / "train.sweep.json").read_text())


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("train-*")} | {
        str(path.relative_to(folder)) for path in folder.glob("train-*.training/*")
    }


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("segments")
    return simulate(run_in(folder), folder / "segments.h5", 130)


@pytest.fixture(scope="module")
def swept(segments: Path, tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    """A folder in which a sweep was stopped in its second training, and resumed."""
    folder = tmp_path_factory.mktemp("swept")
    configure(folder, segments, 8)
    program = run_in(folder)
    running = program.start(*SWEEP)
    table = folder / "train-latents4.safetensors.training/losses.csv"
    running.wait_until(table.exists)
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 3, running.text
    assert running.text.count("run the same command again to resume") == 1, running.text
    first = (folder / "train-latents6.safetensors").stat().st_mtime_ns
    assert [t["latents"] for t in numbers(folder)["trained"]] == [6]
    assert numbers(folder)["missing"] == [4]
    assert "Numbers not trained yet: 4." in (folder / "train.sweep.html").read_text()
    outcome = program(*SWEEP)
    assert outcome.code == 0, outcome.text
    assert "train-latents6.safetensors already is the model" in outcome.text
    assert "resuming after" in outcome.text
    assert (folder / "train-latents6.safetensors").stat().st_mtime_ns == first
    return folder


def test_each_model_is_that_of_a_training_of_its_own(swept: Path, segments: Path, hrtemvae: Program) -> None:
    alone = configure(hrtemvae.folder, segments, 8)
    outcome = hrtemvae("train", alone, "--latents", 4)
    assert outcome.code == 0, outcome.text
    one, other = weights(swept / "train-latents4.safetensors"), weights(hrtemvae.folder / "train.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_numbers_are_those_of_an_evaluation(swept: Path, segments: Path, hrtemvae: Program) -> None:
    found = numbers(swept)
    assert [t["latents"] for t in found["trained"]] == [4, 6]
    assert found["missing"] == found["learned_nothing"] == []
    page = (swept / "train.sweep.html").read_text()
    assert "<script" not in page
    for t in found["trained"]:
        path = swept / t["file"]
        outcome = hrtemvae("model", "evaluate", path, "--segments", segments, script="coarse_evaluation.py")
        assert outcome.code == 0, outcome.text
        evaluated = json.loads((hrtemvae.folder / f"{path.stem}.json").read_text())
        for name in ("sha256", "active_latents", "variance", "reconstruction"):
            assert t[name] == evaluated[name], name
        history = load_model(path).provenance["history"]
        assert t["epochs"] == len(history) == 8
        assert t["seconds"] == pytest.approx(sum(117 / h["segments_per_second"] for h in history))
        assert f"<td>{t['reconstruction']['loss']:.1f}</td>" in page
    explained = {t["latents"]: t["reconstruction"]["explained"] for t in found["trained"]}
    assert found["smallest_within_tolerance"] == smallest_sufficient(explained)


def test_two_ranks_leave_the_same(swept: Path, segments: Path, hrtemvae: Program) -> None:
    configure(hrtemvae.folder, segments, 8)
    outcome = hrtemvae(*SWEEP, ranks=2)
    assert outcome.code == 0, outcome.text
    assert names(hrtemvae.folder) == names(swept)
    for one, two in zip(numbers(swept)["trained"], numbers(hrtemvae.folder)["trained"], strict=True):
        assert one["file"] == two["file"]
        first, there = (losses(folder, one["file"])[0] for folder in (swept, hrtemvae.folder))
        assert {k: float(v) for k, v in first.items()} == pytest.approx(
            {k: float(v) for k, v in there.items()}, rel=1e-4, abs=1e-5
        )
        # Rounding grows from step to step.
        for name, most in (("floor", 1e-6), ("average_segment", 1e-6), ("loss", 0.02)):
            assert one["reconstruction"][name] == pytest.approx(two["reconstruction"][name], rel=most), name


@pytest.mark.parametrize(
    ("explained", "expected"),
    [
        ({64: 0.5}, 64),
        ({8: 0.70, 2: 0.40, 32: 0.705, 64: 0.702}, 8),
        ({8: 0.705 - 1.1 * TOLERANCE, 32: 0.705, 64: 0.70}, 32),
    ],
)
def test_the_smallest_number_within_the_tolerance(explained: dict[int, float], expected: int) -> None:
    assert smallest_sufficient(explained) == expected


def test_a_network_that_learns_nothing_does_not_end_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(_: World, config: TrainConfig, *__: object) -> str:
        return "learned nothing" if config.network.latents == 2 else ""

    monkeypatch.setattr(sweeping, "try_to_train", trained)
    members = sweeping.members_of(TrainConfig(), [1, 2, 3], Path("m.safetensors"))
    ended = []
    sweeping.sweep(World(), members, False, StopRequest(), lambda member, why: ended.append((member.latents, why)))
    assert ended == [(1, ""), (2, "learned nothing"), (3, "")]
    with pytest.raises(InputError, match="no network of this sweep"):
        sweeping.sweep(World(), members[1:2], False, StopRequest(), lambda *_: None)


def test_a_sweep_in_which_nothing_is_learned(segments: Path, hrtemvae: Program, tmp_path: Path) -> None:
    path = configure(tmp_path, segments, 2)
    path.write_text(path.read_text().replace("beta: 0.0001", "beta: 1000.0"))
    assert_refused(hrtemvae("train", path, "--sweep-latents", 1), "no network of this sweep has learned anything")
    assert numbers(tmp_path)["learned_nothing"] == [1]
    assert "Latents: 1; the trained network has learned nothing" in (tmp_path / "train.sweep.html").read_text()


def test_bad_input(segments: Path, hrtemvae: Program, tmp_path: Path) -> None:
    path = configure(tmp_path, segments)
    for words, expected in (
        ((2, 8, 2), "2 is given twice"),
        ((8, 0), "greater than or equal to 1, not 0"),
        ((4097,), "less than or equal to 4096, not 4097"),
        ((2, "--init", "train.safetensors"), "--init"),
        ((2, "--segments", "none.h5"), "none.h5"),
        ((2, "-o", tmp_path), "not"),
    ):
        assert_refused(hrtemvae("train", path, "--sweep-latents", *words), expected)
    for wrong in ((), ("many",), (2, "--latents", 3)):
        assert_refused(hrtemvae("train", path, "--sweep-latents", *wrong), "argument --")
    (tmp_path / "train.sweep.html").write_text("not ours")
    assert_refused(hrtemvae("train", path, "--sweep-latents", 2), "train.sweep.html: exists")
    assert not (tmp_path / "train-latents2.safetensors.training").exists()

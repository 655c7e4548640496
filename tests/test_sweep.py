"""A sweep over the number of latents: the trainings it consists of, its page, and what it finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Program
from conftest import assert_refused
from small_training import configure, losses, simulate

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.evaluation.sweep import TOLERANCE, smallest_sufficient
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.training import sweep as sweeping
from hrtemvae_hpc.training.train_config import TrainConfig

COARSE = "coarse_evaluation.py"
EPOCHS = 4
SWEEP = ("train", "train.yaml", "--sweep-latents", 6, 4)
SMALLEST = "train-latents4.safetensors"


def numbers(folder: Path) -> Any:
    return json.loads((folder / "train.sweep.json").read_text())


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("segments")
    return simulate(run_in(folder), folder / "segments.h5", 130)


@pytest.fixture(scope="module")
def swept(segments: Path, tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    configure(folder, segments, EPOCHS)
    outcome = run_in(folder)(*SWEEP)
    assert outcome.code == 0, outcome.text
    return folder


def test_the_numbers_are_those_of_an_evaluation(swept: Path, segments: Path, hrtemvae: Program) -> None:
    found = numbers(swept)
    assert [t["latents"] for t in found["trained"]] == [4, 6]
    assert found["missing"] == found["learned_nothing"] == []
    page = (swept / "train.sweep.html").read_text()
    assert "<script" not in page
    assert hrtemvae("model", "evaluate", swept / SMALLEST, "--segments", segments, script=COARSE).code == 0
    evaluated = json.loads((hrtemvae.folder / SMALLEST).with_suffix(".json").read_text())
    for name in ("sha256", "active_latents", "variance", "reconstruction"):
        assert found["trained"][0][name] == evaluated[name], name
    for t in found["trained"]:
        history = load_model(swept / t["file"]).provenance["history"]
        assert t["epochs"] == len(history) == EPOCHS
        assert t["seconds"] == pytest.approx(sum(117 / h["segments_per_second"] for h in history))
        assert f"<td>{t['reconstruction']['loss']:.1f}</td>" in page
    explained = {t["latents"]: t["reconstruction"]["explained"] for t in found["trained"]}
    assert found["smallest_within_tolerance"] == smallest_sufficient(explained)


def test_two_ranks_leave_the_same(swept: Path, segments: Path, hrtemvae: Program) -> None:
    configure(hrtemvae.folder, segments, EPOCHS)
    outcome = hrtemvae(*SWEEP, ranks=2)
    assert outcome.code == 0, outcome.text
    assert files(hrtemvae.folder) == files(swept)
    for one, two in zip(numbers(swept)["trained"], numbers(hrtemvae.folder)["trained"], strict=True):
        assert one["file"] == two["file"]
        first, there = (losses(folder, one["file"])[0] for folder in (swept, hrtemvae.folder))
        assert {k: float(v) for k, v in first.items()} == pytest.approx(
            {k: float(v) for k, v in there.items()}, rel=1e-3, abs=1e-5
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


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ((2, 8, 2), "--sweep-latents: 2 is given twice"),
        ((8, 0), "--sweep-latents: input should be greater than or equal to 1, not 0"),
        ((4097,), "--sweep-latents: input should be less than or equal to 4096, not 4097"),
    ],
)
def test_numbers_that_no_sweep_has(wrong: tuple[int, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        sweeping.members_of(TrainConfig(), wrong, Path("m.safetensors"))


def test_bad_input(segments: Path, hrtemvae: Program, tmp_path: Path) -> None:
    path = configure(tmp_path, segments)
    assert_refused(hrtemvae("train", path, "--sweep-latents"), "expected at least one argument")
    for words, expected in (
        ((2, 2), "2 is given twice"),
        ((2, "--init", "train.safetensors"), "--init"),
        ((2, "-o", tmp_path), "is a folder"),
    ):
        assert_refused(hrtemvae("train", path, "--sweep-latents", *words), expected)
    (tmp_path / "train.sweep.html").write_text("not ours")
    assert_refused(hrtemvae("train", path, "--sweep-latents", 2), "train.sweep.html: exists")
    assert not (tmp_path / "train-latents2.safetensors.training").exists()

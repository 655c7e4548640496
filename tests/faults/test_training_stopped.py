"""Trainings that are killed, stopped or run out of disk resume to the bit."""

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from commands import Program, Running
from conftest import on_a_small_disk
from small_training import configure, losses, simulate, weights

EPOCHS = 6


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    # Batches of 12 leave a last batch of 1: less than one per rank.
    folder = tmp_path_factory.mktemp("segments")
    return simulate(run_in(folder), folder / "segments.h5", 268)


@pytest.fixture(scope="module")
def undisturbed(segments: Path, tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = run_in(folder)("train", configure(folder, segments, EPOCHS))
    assert outcome.code == 0, outcome.text
    return folder


def start(program: Program, ranks: int | None, epochs: int = 2) -> Running:
    """Begin the training of train.yaml and wait until so many ``epochs`` are done."""
    training = program.start("train", "train.yaml", ranks=ranks)
    table = program.folder / "train.safetensors.training/losses.csv"
    training.wait_until(lambda: table.exists() and len(table.read_text().splitlines()) > epochs)
    return training


def a_rank(folder: Path) -> psutil.Process:
    """A process that trains in ``folder``: of those that the fork server made, one without children."""

    def trains(process: psutil.Process) -> bool:
        return process.cwd() == str(folder) and "serve" in process.cmdline() and not process.children()

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [process] if trains(process) else []
    return found[-1]


@pytest.mark.parametrize("ranks", [None, 2])
def test_killed_and_run_again_it_resumes_to_the_bit(
    hrtemvae: Program, segments: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, ranks: int | None
) -> None:
    reference = tmp_path_factory.mktemp("reference")
    outcome = hrtemvae("train", configure(reference, segments, EPOCHS), cwd=reference, ranks=ranks)
    assert outcome.code == 0, outcome.text
    configure(tmp_path, segments, EPOCHS, "run: {checkpoint_every: 0.01}\n")
    training = start(hrtemvae, ranks)
    a_rank(tmp_path).kill()
    assert training.wait(30) == 4, training.text
    assert "killed by SIGKILL while training, epoch" in training.text
    assert not (tmp_path / "train.safetensors").exists()
    outcome = hrtemvae("train", "train.yaml", ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert "resuming after" in outcome.text
    assert losses(tmp_path) == losses(reference)
    one, other = weights(tmp_path / "train.safetensors"), weights(reference / "train.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_signal_to_any_rank_stops_and_saves(
    hrtemvae: Program, segments: Path, tmp_path: Path, ranks: int | None
) -> None:
    configure(tmp_path, segments, 2000)
    training = start(hrtemvae, ranks)
    a_rank(tmp_path).send_signal(signal.SIGTERM)
    assert training.wait(30) == 3, training.text
    assert training.text.count("run the same command again to resume") == 1, training.text
    assert (tmp_path / "train.safetensors.training/checkpoint.safetensors").exists()


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_stopped_sweep_resumes_to_the_bit(
    hrtemvae: Program, segments: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, ranks: int | None
) -> None:
    configure(tmp_path, segments, EPOCHS)
    command = ("train", "train.yaml", "--sweep-latents", 6, 4)
    done, stopped = tmp_path / "train-latents6.safetensors", tmp_path / "train-latents4.safetensors"
    sweep = hrtemvae.start(*command, ranks=ranks)
    sweep.wait_until((tmp_path / f"{stopped.name}.training/losses.csv").exists)
    a_rank(tmp_path).send_signal(signal.SIGTERM)
    assert sweep.wait(30) == 3, sweep.text
    assert sweep.text.count("run the same command again to resume") == 1, sweep.text
    numbers = json.loads((tmp_path / "train.sweep.json").read_text())
    assert ([t["latents"] for t in numbers["trained"]], numbers["missing"]) == ([6], [4])
    assert "Numbers not trained yet: 4." in (tmp_path / "train.sweep.html").read_text()
    first = done.stat().st_mtime_ns
    outcome = hrtemvae(*command, ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert f"{done.name} already is the model" in outcome.text
    assert "resuming after" in outcome.text
    assert done.stat().st_mtime_ns == first
    numbers = json.loads((tmp_path / "train.sweep.json").read_text())
    assert ([t["latents"] for t in numbers["trained"]], numbers["missing"]) == ([4, 6], [])
    alone = tmp_path_factory.mktemp("alone")
    outcome = hrtemvae("train", configure(alone, segments, EPOCHS), "--latents", 4, cwd=alone, ranks=ranks)
    assert outcome.code == 0, outcome.text
    one, other = weights(stopped), weights(alone / "train.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_full_disk(undisturbed: Path, segments: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    train = f"hrtemvae train {configure(tmp_path, segments, EPOCHS)} -o {disk}/train.safetensors"
    script = f"""
{train}; [ $? = 5 ] || exit 1
ls -A {disk}
mount -o remount,size=20m {disk}
{train} && cp -r {disk}/. {tmp_path}
"""
    printed = on_a_small_disk(disk, "60k", script)
    assert "No space left on device" in printed
    assert losses(tmp_path) == losses(undisturbed)

"""Training as a job on two nodes in the image: the losses of one process outside it, also after a stop."""

import csv
import re
import time
from pathlib import Path

import pytest

from .cluster import run
from .conftest import TRAIN, Queue

SMALL = """
network: {window: 16, channels: [4, 6], hidden: 16, latents: 4,
          decoder: {base: 4, base_channels: 6, channels: [6, 4]}}
optimizer: {epochs: EPOCHS, batch: 12, learning_rate: 0.01, seed: 2}
loss: {beta: 0.0001}
"""


def configure(folder: Path, epochs: int, segments: int) -> tuple[str, ...]:
    (folder / "small.yaml").write_text(SMALL.replace("EPOCHS", str(epochs)))
    run("hrtemvae", "segments", "--simulated", segments, "--window", 16, "-o", folder / "segments.h5")
    return "small.yaml", "--segments", "segments.h5"


def losses(model: Path) -> list[list[float]]:
    with model.with_name(model.name + ".training").joinpath("losses.csv").open() as file:
        return [[float(v) for k, v in row.items() if k != "segments_per_second"] for row in csv.DictReader(file)]


def test_two_nodes_train_as_one_process_does(queue: Queue) -> None:
    arguments = configure(queue.folder, 4, 268)
    job = queue.submit("--nodes=2", TRAIN, *arguments)
    queue.until_state(job, "COMPLETED")
    log = queue.log(job)
    assert "rank 1: " in log
    assert "model: small.safetensors" in log
    alone = queue.folder / "alone.safetensors"
    run("hrtemvae", "train", queue.folder / arguments[0], "--segments", queue.folder / arguments[2], "-o", alone)
    there = losses(queue.folder / "small.safetensors")
    assert there[0] == pytest.approx(losses(alone)[0], rel=1e-3, abs=1e-4)
    # Rounding grows from step to step, most while lattices begin to appear.
    assert [row[1] for row in there] == pytest.approx([row[1] for row in losses(alone)], rel=1e-2)


def test_a_stopped_training_is_requeued_and_resumes_to_the_bit(queue: Queue) -> None:
    arguments = configure(queue.folder, 12, 2000)
    undisturbed = queue.submit("--nodes=2", TRAIN, *arguments, "-o", "undisturbed.safetensors")
    queue.until_state(undisturbed, "COMPLETED")
    job = queue.submit("--nodes=2", TRAIN, *arguments)
    table = queue.folder / "small.safetensors.training/losses.csv"
    until = time.monotonic() + 120
    while not table.exists() or len(table.read_text().splitlines()) < 3:
        assert time.monotonic() < until, queue.log(job)
        time.sleep(0.1)
    run("scancel", "--signal=USR1", "--batch", job)
    queue.resume(job)
    queue.until_state(job, "COMPLETED")
    log = queue.log(job)
    assert "requeued, resumes" in log
    assert re.search(r"resuming after \d+ epochs and \d+ steps", log)
    assert losses(queue.folder / "small.safetensors") == losses(queue.folder / "undisturbed.safetensors")


def test_a_training_without_segments(queue: Queue) -> None:
    (queue.folder / "small.yaml").write_text(SMALL.replace("EPOCHS", "1"))
    job = queue.submit("--nodes=2", TRAIN, "small.yaml", "--segments", "none.h5")
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "2:0"
    assert len(re.findall("^hrtemvae: .*none.h5", queue.log(job), re.MULTILINE)) == 1

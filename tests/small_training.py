"""A training that takes a second: its segments, its configuration, and what it leaves."""

import csv
from pathlib import Path

import torch
from commands import Program

from hrtemvae_hpc.model.model_file import load_model

TINY = """
network: {window: 16, channels: [4, 6], hidden: 16, latents: 4,
          decoder: {base: 4, base_channels: 6, channels: [6, 4]}}
optimizer: {epochs: EPOCHS, batch: 12, learning_rate: 0.01, seed: 2}
loss: {beta: 0.0001}
augmentation: {turn: true, flip: true, noise: 0.03, contrast: 0.1}
"""


def simulate(program: Program, path: Path, count: int, window: int = 16, seed: int = 0) -> Path:
    outcome = program("segments", "--simulated", count, "--window", window, "--seed", seed, "-o", path)
    assert outcome.code == 0, outcome.text
    return path


def configure(folder: Path, segments: Path, epochs: int = 4, extra: str = "") -> Path:
    path = folder / "train.yaml"
    path.write_text(TINY.replace("EPOCHS", str(epochs)) + f"data: {{segments: [{segments}]}}\n" + extra)
    return path


def losses(folder: Path, model: str = "train.safetensors") -> list[dict[str, str]]:
    with (folder / f"{model}.training/losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["segments_per_second"]
    return rows


def weights(path: Path) -> dict[str, torch.Tensor]:
    model = load_model(path)
    assert model.decoder is not None
    return {**model.encoder.state_dict(), **{f"decoder.{k}": v for k, v in model.decoder.state_dict().items()}}

"""Configurations that claim too much or hide something: refused in one sentence, within the budget."""

import os
from pathlib import Path

import pytest
from commands import Program
from conftest import assert_refused
from hostile import refusal

from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.training.train_config import TrainConfig

NINE_LEVELS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
DIGITS = "9" * 400

ANALYSIS: dict[str, tuple[str | bytes, str]] = {
    "aliases": (NINE_LEVELS, "anchors and aliases can't be used"),
    "itself": ("a: &a [*a]", "anchors and aliases can't be used"),
    "deep brackets": ("[" * 60000, "more than 10 levels"),
    "deep sections": ("{a: " * 15000, "more than 10 levels"),
    "deep lists": ("- " * 30000, "more than 10 levels"),
    "deep keys": ("? " * 30000, "more than 10 levels"),
    "many items": ("{" + "a," * 30000, "not a YAML file"),
    "large": ("#" * 70000, "larger than a configuration can be (64 KiB)"),
    "a key twice": ("windows: {step: 4, step: 5}", "line 1: `step` is given twice"),
    "a section twice": ("windows: {step: 4}\nwindows: {scaling: frame}", "line 2: `windows` is given twice"),
    "number as key": ("1: {step: 4}", "a key must be text"),
    "list as key": ("[windows]: {step: 4}", "a key must be text"),
    "python": ("windows: !!python/object/apply:os.getpid []", "tags can't be used"),
    "binary": ("movie: {dataset: !!binary aGVsbG8=}", "tags can't be used"),
    "merge": ("<<: {windows: {step: 4}}", "`<<`: no such key"),
    "two documents": ("windows: {step: 4}\n---\nwindows: {step: 8}", "another document"),
    "later YAML": ("%YAML 9.9\n---\nwindows: {step: 4}", "not a YAML file"),
    "bytes": (b"\xff\xfe\0\0", "not a YAML file"),
    "zeros": (bytes(1000), "not a YAML file"),
    "raw escape": ("movie: {dataset: \x1b[31mred}", "not a YAML file"),
    "escape in a key": ('"\\e[31m": 3', r"`\x1b[31m`: no such key"),
    "escape in a nested key": ('windows: {"\\e[31m": 3}', r"`windows.\x1b[31m`: no such key"),
    "escape in a value": ('windows: {step: "\\e[31m"}', r"not '\x1b[31m'"),
    "escape in a name": ('movie: {dataset: "\\e[31m"}', "control characters are not allowed"),
    "zero in a name": ('movie: {dataset: "a\\0b"}', "control characters are not allowed"),
    "half a character": ('movie: {dataset: "\\ud800"}', "`movie.dataset`"),
    "long value": (f"windows: {{step: {'x' * 50000}}}", "`windows.step`"),
    "infinite time": ("run: {silent_after: .inf}", "finite number"),
    "no time": ("run: {silent_after: .nan}", "finite number"),
    "overflowing time": ("run: {silent_after: 1e999}", "finite number"),
    "digits of memory": (f"run: {{max_memory: {DIGITS}}}", "`run.max_memory`"),
    "memory": (f"run: {{max_memory: {DIGITS}GB}}", "`run.max_memory`"),
    "more memory than there is": ("run: {max_memory: 999999999TB}", "`run.max_memory`"),
    "digits of step": (f"windows: {{step: {'9' * 5000}}}", "`windows.step`"),
    "step": (f"windows: {{step: {2**40}}}", "`windows.step`"),
    "frames": (f"movie: {{frames: 0:{2**70}}}", "`movie.frames`"),
    "a list of frames": (f"movie: {{frames: [0, {2**50}, 1]}}", "`movie.frames`"),
    "negative frames": ("movie: {frames: [-5, 6, 1]}", "`movie.frames`"),
    "region": (f"movie: {{roi: '0:{2**70},0:5'}}", "`movie.roi`"),
    "negative region": ("movie: {roi: [[-5, 6], [0, 5]]}", "`movie.roi`"),
    "digits of a factor": (f"preprocess: {{resample: {DIGITS}}}", "`preprocess.resample`"),
    "infinite factor": ("preprocess: {resample: .inf}", "`preprocess.resample`"),
}

TRAINING = {
    "window": (f"network: {{window: {2**40}}}", "`network.window`"),
    "channels": (f"network: {{channels: [{'1, ' * 20000}]}}", "`network.channels`"),
    "wide channels": (f"network: {{channels: [{2**40}]}}", "`network.channels`"),
    "kernel": (f"network: {{kernel: {2**30}}}", "`network.kernel`"),
    "weights": ("network: {hidden: 131072, latents: 4096}", "a network of 1,212,590,465 weights is larger"),
    "epsilon": ("network: {epsilon: .inf}", "`network.epsilon`"),
    "a list": ("network: []", "`network`"),
    "decoder": ("network: {decoder: 5}", "`network.decoder`"),
    "beta": ("loss: {beta: .nan}", "`loss.beta`"),
    "epochs": (f"optimizer: {{epochs: {2**50}}}", "`optimizer.epochs`"),
    "seed": (f"optimizer: {{seed: {2**64}}}", "`optimizer.seed`"),
    "name": ('model: {name: "a\\0b"}', "`model.name`"),
    "long name": (f"model: {{name: {'x' * 1000}}}", "`model.name`"),
}


def refused(path: Path, text: str | bytes, schema: type[AnalysisConfig] | type[TrainConfig]) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    sentence = refusal(lambda: load_config(path, {}, schema))
    assert sentence.startswith(f"{path}: ")
    return sentence


@pytest.mark.parametrize("what", ANALYSIS)
def test_configurations_of_an_analysis(tmp_path: Path, what: str) -> None:
    text, words = ANALYSIS[what]
    assert words in refused(tmp_path / "c.yaml", text, AnalysisConfig)


@pytest.mark.parametrize("what", TRAINING)
def test_configurations_of_a_training(tmp_path: Path, what: str) -> None:
    text, words = TRAINING[what]
    assert words in refused(tmp_path / "c.yaml", text, TrainConfig)


@pytest.mark.parametrize("value", [f"{DIGITS}GB", DIGITS, "1e400", "inf", "-1"])
def test_sizes_on_the_command_line(value: str) -> None:
    assert "--max-memory: " in refusal(lambda: load_config(None, {"run.max_memory": value}, AnalysisConfig))


@pytest.mark.parametrize("path", ["pipe", "/dev/zero", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert "is not a regular file" in refusal(lambda: load_config(tmp_path / path, {}, AnalysisConfig))


def test_on_the_command_line(hrtemvae: Program, tmp_path: Path, movie_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(NINE_LEVELS)
    assert_refused(hrtemvae("plan", movie_path, "--config", "c.yaml"), "c.yaml", "anchors and aliases")
    assert_refused(hrtemvae("plan", movie_path, "--max-memory", f"{DIGITS}GB"), "--max-memory")

"""Options of the command line, handed on to another process in another folder."""

import os
from pathlib import Path

import pytest

from hrtemvae_hpc.cli.main import parser
from hrtemvae_hpc.cli.options import analysis_words


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("--model dense", "--model dense"),
        ("--model published", "--model published"),
        ("--model mine.safetensors", "--model {}/mine.safetensors"),
        ("--drift none --step 16", "--drift none --step 16"),
        ("--drift mine.csv --against log.csv", "--drift {}/mine.csv --against {}/log.csv"),
        ("--roi 0:64,:128 --partial", "--roi 0:64,:128 --partial"),
    ],
)
def test_words_mean_the_same_in_another_folder(given: str, absolute: str) -> None:
    options = parser(["session"]).parse_args(["session", "run", "night", *given.split()])
    assert analysis_words(options) == absolute.replace("{}", os.getcwd()).split()


def test_a_configuration_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("windows: {step: 16}\n")
    options = parser(["session"]).parse_args(["session", "run", "night", "--config", "mine.yaml"])
    assert analysis_words(options) == ["--config", str(tmp_path / "mine.yaml")]

"""Help appears quickly, and each of its examples works."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Program, command_line, environment

from hrtemvae_hpc.cli.main import COMMANDS, parser


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser([name]).parse_args([name, "--help"])
    assert ended.value.code == 0
    assert f"example: hrtemvae {COMMANDS[name].example}" in " ".join(capsys.readouterr().out.split())


def test_help_of_the_program_loads_no_command() -> None:
    command = command_line(["--help"], script="loaded_modules.py")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert all(command.text.split()[0] in done.stdout for command in COMMANDS.values())
    assert not set(done.stderr.split()) & {"torch", "numpy", "h5py", "pydantic", "mpi4py"}


def test_examples_run_one_after_the_other(hrtemvae: Program, tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        if name == "session":
            (tmp_path / "movies").mkdir()
            shutil.copy(tmp_path / "movie.h5", tmp_path / "movies")
        elif name == "train":
            (tmp_path / "train.yaml").write_text("optimizer: {epochs: 2}\nloss: {beta: 0.01}\n")
        elif name == "image":  # tests/facility builds it
            continue
        ran = hrtemvae(*shlex.split(command.example))
        assert ran.code == 0, (command.example, ran)
    made = {"maps.h5", "maps.report", "maps.trace", "movies.maps", "segments.h5", "model.safetensors", "latents.png"}
    assert made <= {path.name for path in tmp_path.iterdir()}

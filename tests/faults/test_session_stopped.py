"""A session that is stopped resumes."""

import signal
from pathlib import Path

import h5py
import pytest
from commands import Program
from conftest import drifting_pixels


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_session_that_is_stopped_resumes(
    hrtemvae: Program, ranks: int, tiny_model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "night").mkdir()
    with h5py.File(tmp_path / "night/long.h5", "w") as file:
        file["movie"] = drifting_pixels(30, 110, 110)
    command = ["session", "run", "night", "--ranks", ranks, "--step", 1, "--model", tiny_model_path]
    running = hrtemvae.start(*command)
    running.wait_until(lambda: list(tmp_path.glob("night.maps/long.h5.maps.h5.parts/*.safetensors")))
    assert "running" in hrtemvae("session", "status", "night").text
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 3, running.text
    assert "Traceback" not in running.text
    log = tmp_path / "night.maps/logs/long.h5.log"
    assert "tiles are saved" in log.read_text()
    done = hrtemvae(*command)
    assert done.code == 0, done.text
    assert "resuming" in log.read_text()

"""A run that follows a recording and is killed or stopped goes on; so does one whose writer is killed."""

import signal
from pathlib import Path

import numpy as np
import pytest
from commands import Program, command_line
from conftest import assert_refused, assert_same_maps, drifting_pixels, on_a_small_disk
from recorder import recording

PIXELS = drifting_pixels(60, 70, 90)


@pytest.fixture
def words(tiny_model_path: Path) -> tuple[object, ...]:
    return "analyze", "live.h5", "--model", tiny_model_path, "-o", "maps.h5", "--follow", "--every", "0.1"


def assert_complete(hrtemvae: Program, folder: Path, model: Path) -> None:
    """The result is that of an analysis of the complete movie."""
    assert not (folder / "maps.h5.live").exists()
    alone = hrtemvae("analyze", "live.h5", "--model", model, "-o", "alone.h5")
    assert alone.code == 0, alone.text
    assert_same_maps(folder / "maps.h5", folder / "alone.h5")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_goes_on(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...], tiny_model_path: Path, how: str
) -> None:
    with recording(tmp_path / "live.h5", PIXELS) as recorder:
        recorder.write(30)
        first = hrtemvae.start(*words)
        first.wait_until(lambda: "frame 28: " in first.text)
        recorder.write(10)
        if how == "killed":
            first.end()
        else:
            first.send_signal(signal.SIGINT)
            assert first.wait(20) == 3, first.text
            assert "stopped by SIGINT while following; run the same command again" in first.text
        recorder.write(10)
        again = hrtemvae.start(*words, log=tmp_path / "again")
        again.wait_until(lambda: "resuming: " in again.text)
        recorder.write(10)
        again.wait_until(lambda: "frame 58: " in again.text)
        refused = hrtemvae(*words)
        assert_refused(refused, "another run is at work on this result")
        recorder.finish()
        assert again.wait() == 0, again.text
    assert_complete(hrtemvae, tmp_path, tiny_model_path)


def test_another_recording_of_the_same_name(hrtemvae: Program, tmp_path: Path, words: tuple[object, ...]) -> None:
    for pixels in (PIXELS, PIXELS[::-1]):
        with recording(tmp_path / "live.h5", np.ascontiguousarray(pixels)) as recorder:
            recorder.write(30)
            running = hrtemvae.start(*words)
            running.wait_until(lambda running=running: "frame 28: " in running.text)  # type: ignore[misc]
            running.end()
            assert "resuming" not in running.text


def test_a_writer_that_is_killed(
    hrtemvae: Program, tmp_path: Path, words: tuple[object, ...], tiny_model_path: Path
) -> None:
    with recording(tmp_path / "live.h5", PIXELS) as recorder:
        recorder.write(30)
    outcome = hrtemvae(*words, "--settle", "1")
    assert_refused(outcome, "still being written, or its writer was killed", "h5clear --status")
    assert "the recording has ended" in outcome.text


def test_a_full_disk(tmp_path: Path, words: tuple[object, ...], tiny_model_path: Path) -> None:
    disk = tmp_path / "disk"
    with recording(tmp_path / "live.h5", PIXELS, "flushed") as recorder:
        recorder.write(60)
        recorder.finish()
    movie, output = tmp_path / "live.h5", disk / "maps.h5"
    follow = " ".join(command_line(["analyze", movie, *words[2:4], "-o", output, *words[6:], "--settle", "3"]))
    script = f"""
{follow}; code=$?
ls -A {disk} {disk}/maps.h5.live
[ $code = 5 ] || exit 1
mount -o remount,size=60m {disk}
{follow} && cp {disk}/maps.h5 {tmp_path}/maps.h5
"""
    printed = on_a_small_disk(disk, "36k", script)
    assert "can't be written (No space left on device); make room" in printed
    assert "resuming: " in printed
    assert (tmp_path / "maps.h5").exists()

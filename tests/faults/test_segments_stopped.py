"""Segments that are stopped, or run out of disk, and cut by the same command again."""

import signal
from pathlib import Path

from commands import Program
from conftest import on_a_small_disk

from hrtemvae_hpc.segments.segment_file import open_segments


def test_stopped_and_run_again(micrographs: Path, hrtemvae: Program, tmp_path: Path) -> None:
    words = ["segments", micrographs, "-o", "s.h5", "--stride", 8, "--turns", 1]
    run = hrtemvae.start(*words)
    run.wait_until(lambda: list(tmp_path.glob("s.h5.parts/*.safetensors")))
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 3, run.text
    first = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("s.h5.parts/*.safetensors")}
    assert 1 <= len(first) < 6
    assert not (tmp_path / "s.h5").exists()
    assert hrtemvae(*words).code == 0
    assert open_segments(tmp_path / "s.h5").segments.shape[1:] == (64, 64)


def test_full_disk(micrographs: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    cut = f"hrtemvae segments {micrographs} --stride 16 --most 30 -o {disk}/s.h5"
    script = f"""
{cut}; [ $? = 5 ] || exit 1
[ ! -e {disk}/s.h5 ] || exit 1
mount -o remount,size=20m {disk}
{cut} && cp {disk}/s.h5 {tmp_path}
"""
    printed = on_a_small_disk(disk, "1m", script)
    assert "can't be written" in printed
    assert len(open_segments(tmp_path / "s.h5").segments) == 180

"""Ranks stay under their bound of memory with a movie that is larger than all of it."""

import re
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from commands import Program


def maps_a_file_in(folder: Path, process: int) -> bool:
    try:
        return f" {folder}/" in Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("chunk", [(1, 1056, 1056), (1000, 96, 96)], ids=["by frame", "by space"])
def test_memory_of_each_rank_stays_under_its_bound(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, chunk: tuple[int, int, int]
) -> None:
    bound, frames, side = 1_000_000_000, 1000, 1056
    with h5py.File(tmp_path / "m.h5", "w") as file:
        movie = file.create_dataset("m", (frames, side, side), "u2", chunks=chunk, compression="gzip")
        still = np.resize(np.arange(chunk[1] * chunk[2], dtype="u2"), chunk)  # every frame is the same
        packed = zlib.compress(still.tobytes(), 1)
        for place in movie.iter_chunks():
            movie.id.write_direct_chunk(tuple(s.start for s in place), packed)
        assert movie.nbytes > 2 * bound
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ("analyze", "m.h5", "--model", tiny_model_path, "--step", 96, "--max-memory", "1GB")
    running = hrtemvae.start(*words, ranks=2, script="peak_memory.py", variables={"HRTEMVAE_SCRATCH": str(scratch)})
    staged = set()
    while running.process.poll() is None:
        staged |= {process for process in psutil.pids() if maps_a_file_in(scratch, process)}
        time.sleep(0.1)
    assert running.wait() == 0, running.text
    on_scratch = "staged on each node's scratch" in running.text
    assert on_scratch or chunk[0] > 1  # how fast this machine encodes decides about chunks of all frames
    assert len(staged) == 2 * on_scratch
    assert not list(scratch.iterdir())
    peaks = [int(peak) for peak in re.findall(r"^peak (\d+)$", running.text, re.MULTILINE)]
    assert len(peaks) == 2
    assert max(peaks) < bound

"""Conversions that are killed, stopped, or run out of disk or memory, and continued by the same command."""

import json
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import SCRIPTS, Program
from conftest import drifting_pixels, on_a_small_disk

# Each layer of chunks is a block; 25 of them, some hundredths of a second each.
PACED = {"HRTEMVAE_BLOCK": "1", "HRTEMVAE_PACE": "0.04"}
PIXELS = drifting_pixels(200, 96, 120)
WORDS = ("convert", "movie.npy", "-o", "c.h5", "--bin", 2, "--pixel-size", 0.1)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    np.save(tmp_path / "movie.npy", PIXELS)
    return tmp_path / "movie.npy"


def expected(hrtemvae: Program, movie: Path) -> bytes:
    """The bytes that an undisturbed conversion of ``movie`` writes, which it does beside it."""
    words = [*WORDS[:2], "-o", "undisturbed.h5", *WORDS[4:]]
    assert hrtemvae(*words).code == 0
    return movie.with_name("undisturbed.h5").read_bytes()


def parts(folder: Path) -> int:
    return len(list(folder.glob("c.h5.parts/*.part")))


@pytest.mark.parametrize(("ranks", "seed"), [(None, 0), (None, 1), (None, 2), (2, 3), (3, 4)])
def test_killed_at_random_and_continued(
    hrtemvae: Program, tmp_path: Path, movie: Path, ranks: int | None, seed: int
) -> None:
    choice = random.Random(seed)
    for _ in range(2):
        run = hrtemvae.start(*WORDS, ranks=ranks, script="paced_conversion.py", variables=PACED)
        already = parts(tmp_path)
        run.wait_until(lambda already=already: parts(tmp_path) > already)  # type: ignore[misc]
        time.sleep(choice.uniform(0, 0.3))
        run.end()
        assert not (tmp_path / "c.h5").exists()
    saved = parts(tmp_path)
    again = hrtemvae(*WORDS, ranks=2, script="paced_conversion.py", variables={"HRTEMVAE_BLOCK": "1"})
    assert again.code == 0, again.text
    resumed = re.search(r"resuming: (\d+) of 25 blocks", again.text)
    assert resumed, again.text
    # Each rank may have been renaming a part when it was killed.
    assert saved <= int(resumed[1]) <= saved + (ranks or 1)
    assert (tmp_path / "c.h5").read_bytes() == expected(hrtemvae, movie)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.h5", "log", "movie.npy", "undisturbed.h5"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_stop_saves_what_is_done(hrtemvae: Program, tmp_path: Path, movie: Path, ranks: int | None) -> None:
    """By a signal, or by the file that a batch script makes, which ranks look for every second."""
    stop = tmp_path / "stop"
    slow = PACED | {"HRTEMVAE_PACE": "0.3", "HRTEMVAE_STOP": str(stop)}
    run = hrtemvae.start(*WORDS, ranks=ranks, script="paced_conversion.py", variables=slow)
    run.wait_until(lambda: parts(tmp_path) >= 2)
    began = time.monotonic()
    if ranks is None:
        run.send_signal(signal.SIGTERM)
    else:
        stop.touch()
    assert run.wait(20) == 3, run.text
    assert time.monotonic() - began < 10
    assert "run the same command again to resume" in run.text
    assert "Traceback" not in run.text
    assert not (tmp_path / "c.h5").exists()
    again = hrtemvae(*WORDS, script="paced_conversion.py", variables={"HRTEMVAE_BLOCK": "1"})
    assert again.code == 0, again.text
    assert "resuming: " in again.text
    assert (tmp_path / "c.h5").read_bytes() == expected(hrtemvae, movie)


def test_a_killed_rank_ends_the_job(hrtemvae: Program, tmp_path: Path, movie: Path) -> None:
    run = hrtemvae.start(*WORDS, script="paced_conversion.py", variables=PACED)
    run.wait_until(lambda: parts(tmp_path) >= 2)
    [rank] = psutil.Process(run.process.pid).children()
    rank.kill()
    assert run.wait(20) == 4, run.text
    assert re.search(r"was killed by SIGKILL while converting frames \d+:\d+", run.text)


def test_parts_of_another_conversion_are_not_mixed(hrtemvae: Program, tmp_path: Path, movie: Path) -> None:
    run = hrtemvae.start(*WORDS, script="paced_conversion.py", variables=PACED)
    run.wait_until(lambda: parts(tmp_path) >= 2)
    run.end()
    other = hrtemvae("convert", "movie.npy", "-o", "c.h5")
    assert other.code == 2
    assert "parts of another conversion" in other.text
    assert hrtemvae("convert", "movie.npy", "-o", "c.h5", "--restart").code == 0


@pytest.mark.parametrize("damage", ["cut", "changed", "changed in the file"])
def test_a_damaged_part_is_converted_again(hrtemvae: Program, tmp_path: Path, movie: Path, damage: str) -> None:
    run = hrtemvae.start(*WORDS, script="paced_conversion.py", variables=PACED)
    run.wait_until(lambda: parts(tmp_path) >= 3)
    run.end()
    saved = parts(tmp_path)
    part = sorted(tmp_path.glob("c.h5.parts/*.part"))[1]
    place = len(part.read_bytes()) // 2
    if damage == "changed in the file":
        place = json.loads(part.read_bytes()[24:].partition(b"\n")[0])["offsets"][0]
        [part] = tmp_path.glob("c.h5.parts/*.unfinished")
    content = bytearray(part.read_bytes())
    content[place] ^= 1
    part.write_bytes(content[:-100] if damage == "cut" else content)
    again = hrtemvae(*WORDS, script="paced_conversion.py", variables={"HRTEMVAE_BLOCK": "1"})
    assert again.code == 0, again.text
    resumed = re.search(r"resuming: (\d+) of 25 blocks", again.text)
    assert resumed
    assert int(resumed[1]) in (saved - 1, saved)  # the run may have been noting a block when it was killed
    assert (tmp_path / "c.h5").read_bytes() == expected(hrtemvae, movie)


def test_full_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "movie.npy", np.random.default_rng(0).poisson(100, (60, 256, 256)).astype("u2"))
    disk = tmp_path / "disk"
    program = f"env HRTEMVAE_BLOCK=1 python {SCRIPTS}/paced_conversion.py"
    convert = f"{program} convert {tmp_path}/movie.npy -o {disk}/c.h5"
    script = f"""
for size in 1m 2m 3m; do
  mount -o remount,size=$size {disk}
  {convert}; [ $? = 5 ] || exit 1
  [ ! -e {disk}/c.h5 ] || exit 1
done
mount -o remount,size=30m {disk}
{convert} && hrtemvae verify {disk}/c.h5 && ls -A {disk}
"""
    printed = on_a_small_disk(disk, "1m", script)
    assert printed.count("Make room") + printed.count("make room") == 3
    assert printed.count("resuming: ") == 2  # 1 MB holds no block
    assert printed.splitlines()[-1] == "c.h5"


@pytest.mark.parametrize("ranks", [None, 3])
def test_a_frame_that_does_not_read_back_is_not_kept(
    hrtemvae: Program, tmp_path: Path, movie: Path, ranks: int | None
) -> None:
    run = hrtemvae(*WORDS, script="faulty_conversion.py", ranks=ranks)
    assert run.code == 4, run.text
    assert "frame 7 is not read as written" in run.text
    assert not (tmp_path / "c.h5").exists()
    assert hrtemvae(*WORDS).code == 0


def test_memory_stays_under_its_bound(hrtemvae: Program, tmp_path: Path) -> None:
    """A sparse movie of 4 GB, with corrections that make its pixels float32."""
    bound, shape = 1_000_000_000, (120, 4096, 4096)
    with (tmp_path / "movie.npy").open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape, dtype=int)) * 2)
    np.save(tmp_path / "gain.npy", np.ones(shape[1:], "f4"))
    words = ("convert", "movie.npy", "-o", "c.h5", "--gain", "gain.npy", "--frames", "0:40", "--max-memory", bound)
    run = hrtemvae(*words, script="peak_memory.py", threads=2)
    assert run.code == 0, run.text
    [peak] = re.findall(r"^peak (\d+)$", run.text, re.MULTILINE)
    assert int(peak) < bound

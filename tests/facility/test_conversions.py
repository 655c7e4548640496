"""Conversions as jobs on two nodes in the image: the bytes of one process outside it, also after a stop."""

import re

import numpy as np

from .cluster import run
from .conftest import CONVERT, Queue


def test_a_stopped_conversion_is_requeued_and_resumes_to_the_byte(queue: Queue) -> None:
    frames = np.random.default_rng(0).poisson(100, (40, 1024, 1024)).astype(np.uint16)
    np.save(queue.folder / "movie.npy", np.tile(frames, (15, 1, 1)))
    words = ("movie.npy", "--pixel-size", "0.02", "--frame-time", "0.1")
    job = queue.submit("--nodes=2", CONVERT, *words, "-o", "movie.h5")
    parts = queue.folder / "movie.h5.parts"
    queue.until(lambda: len(list(parts.glob("*.part"))) >= 2, 200, "two blocks")
    run("scancel", "--signal=USR1", "--batch", job)
    queue.resume(job)
    queue.until_state(job, "COMPLETED")
    log = queue.log(job)
    assert "requeued, resumes" in log
    assert re.search(r"resuming: \d+ of 19 blocks are done", log)
    run("hrtemvae", "convert", *words, "-o", "alone.h5", cwd=queue.folder)
    assert (queue.folder / "movie.h5").read_bytes() == (queue.folder / "alone.h5").read_bytes()
    assert "intact" in run("hrtemvae", "verify", "movie.h5", cwd=queue.folder).stdout
    assert not parts.exists()


def test_without_a_movie(queue: Queue) -> None:
    done = queue.script(CONVERT, "-o", "movie.h5")
    assert done.returncode == 2
    assert "name a movie first" in done.stderr

"""What a rank may use of its node, known without loading PyTorch: processors and memory."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from hrtemvae_hpc.ranks.world import World

FREE_SHARE = 0.8  # of a node's free memory, when --max-memory doesn't say


def rank_threads(world: World) -> int:
    """Threads that work on this rank: its processors, shared with the ranks bound to the same ones.

    Each computes whole blocks alone, so that their number doesn't touch the results. Every rank calls this.
    """
    processors = frozenset(os.sched_getaffinity(0))
    sharing = world.allgather((world.host, processors)).count((world.host, processors))
    threads = max(1, len(processors) // sharing)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        threads = min(threads, int(given))
    return threads


def node_free_bytes() -> int:
    """Memory that this process's node, or the job's control group on it, still has."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, usage in _control_groups():
        try:
            bound, used = int((folder / limit).read_text()), int((folder / usage).read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # no such group, or no limit set
        # Cached files count as used, but are evicted when memory is needed.
        free = min(free, max(0, bound - used + int(counts.get("inactive_file", 0))))
    return free


def _control_groups() -> Iterator[tuple[Path, str, str]]:
    """Folders of the control groups this process is in, innermost first, and their files of limit and usage."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, files = (
            (root / "memory", ("limit_in_bytes", "usage_in_bytes")) if controllers else (root, ("max", "current"))
        )
        path = PurePosixPath(group.lstrip("/"))
        for folder in (path, *path.parents):
            yield base / folder, f"memory.{files[0]}", f"memory.{files[1]}"

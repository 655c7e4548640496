"""What a rank may use: its device, processors and memory."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from hrtemvae_hpc.distributed.world import World

FREE_SHARE = 0.8  # of a node's free memory, when --max-memory doesn't say


@dataclass(frozen=True)
class RankResources:
    """One rank's place and means, as told to rank 0. Bytes, windows/s, bytes/s."""

    rank: int
    host: str
    pid: int
    device: str
    device_type: str
    threads: int
    used: int  # by this process before any tile
    node_free: int
    encode_rate: float = 0.0
    decode_rate: float = 0.0


def bind_device(world: World) -> torch.device:
    """This rank's device: a GPU by its place on the node where there are any (CUDA and ROCm alike), else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """A device as people call it."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return "CPU"


def compute_threads(world: World, device: torch.device) -> int:
    """Threads that encode on this rank: its processors, shared with the ranks bound to the same ones.

    Each thread computes whole blocks alone, so that their number doesn't touch the results. Every rank calls this.
    """
    processors = frozenset(os.sched_getaffinity(0))
    sharing = world.allgather((world.host, processors)).count((world.host, processors))
    threads = max(1, len(processors) // sharing)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        threads = min(threads, int(given))
    torch.set_num_threads(1)
    return 1 if device.type == "cuda" else threads


def process_bytes() -> int:
    """Memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


def node_free_bytes() -> int:
    """Memory that this process's node, or the job's control group on it, still has."""
    free = int(psutil.virtual_memory().available)
    try:
        group = Path("/proc/self/cgroup").read_text().split("0::", 1)[1].splitlines()[0]
        for folder in (
            Path("/sys/fs/cgroup") / group.lstrip("/"),
            *(Path("/sys/fs/cgroup") / group.lstrip("/")).parents,
        ):
            limit = folder / "memory.max"
            if limit.is_file() and limit.read_text().strip() != "max":
                used = int((folder / "memory.current").read_text())
                free = min(free, max(0, int(limit.read_text()) - used))
    except (OSError, IndexError, ValueError):
        pass  # no version 2 control groups here: the node's own figure stands
    return free

"""What a rank may use: its device, processors and memory."""

import contextlib
import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import psutil
import torch

from hrtemvae_hpc.files import file_sha256
from hrtemvae_hpc.ranks.node import rank_threads
from hrtemvae_hpc.ranks.world import World

_LOADED_LATER = 64 * 10**6  # bytes: from the trial to the result, 36 MB were measured
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@dataclass(frozen=True)
class RankResources:
    """One rank's place and resources, as reported to rank 0. Bytes, windows/s, bytes/s."""

    rank: int
    host: str
    pid: int
    device: str
    device_type: str
    threads: int
    used: int  # by this process before any tile
    node_free: int
    stage_memory: int = 0  # bytes that can be staged in the node's memory, and on scratch
    stage_scratch: int = 0
    stage_private: tuple[str, ...] = ()  # folders that ranks of this node see differently, so that none is staged there
    encode_rate: float = 0.0
    decode_rate: float = 0.0
    bfloat16: bool = True  # computes in it no slower than in float32
    without: str = ""  # why something that would be faster can't be used


def on_nodes(ranks: Sequence[RankResources], times: int) -> list[RankResources]:
    """``ranks``, and those of so many ``times`` as many nodes that are like theirs."""
    more = [
        replace(r, rank=r.rank + i * len(ranks), host=f"{r.host} ({i + 1})") for i in range(1, times) for r in ranks
    ]
    return [*ranks, *more]


def bind_device(world: World) -> torch.device:
    """This rank's device: a GPU by its place on the node where there are any (CUDA and ROCm alike), else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def arithmetic(device: torch.device) -> dict[str, str]:
    """What determines the last bits of what ``device`` computes: the device, and the libraries that compute on it."""
    libraries = {"PyTorch": torch.__version__, "numba": numba.__version__}
    if device.type == "cuda":
        cudnn = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        return {"device": torch.cuda.get_device_name(device), "cuDNN": cudnn, **libraries}
    named = re.findall(r"(MKL-DNN v[\d.]+|Math Kernel Library Version [\d.]+|OpenBLAS [\d.]+)", torch.__config__.show())
    return {"device": " ".join(["CPU", *_instruction_sets()]), "BLAS": ", ".join(named), **libraries}


def _instruction_sets() -> list[str]:
    """Those by which libraries choose how to multiply on this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    chosen = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "sve2", "bf16")
    return [torch.backends.cpu.get_cpu_capability(), *(flag for flag in chosen if flag in flags)]


def device_name(device: torch.device) -> str:
    """A device as people call it."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return "CPU"


def compute_threads(world: World) -> int:
    """Threads that work on this rank, as ``rank_threads``; PyTorch uses one in each of them.

    Every rank calls this.
    """
    torch.set_num_threads(1)
    return rank_threads(world)


def process_bytes() -> int:
    """Memory that this process holds besides its tiles: what it holds now, and what its libraries load later."""
    return int(psutil.Process().memory_info().rss) + _LOADED_LATER


def image_file() -> Path | None:
    """The file of the container image that this process runs in, None outside one."""
    path = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    return Path(path) if path else None


def image_in_use() -> dict[str, str | None]:
    """The container image this process runs in and its SHA-256, nothing outside one.

    The SHA-256 is None if the image's file can't be seen from inside.
    """
    path = image_file()
    if path is None:
        return {}
    try:
        return {"image": str(path), "image_sha256": file_sha256(path)}
    except OSError:
        return {"image": str(path), "image_sha256": None}


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next block of that size.

    glibc returns blocks of some megabytes to the system and requests them again: in training, where every step takes
    the same blocks, this takes a quarter of the time. Does nothing if the C library isn't glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

"""The ranks of a training: under torchrun, srun, mpirun, or alone. Gradients travel through torch.distributed.

Under srun and mpirun, MPI brings the ranks together, and they agree over it where to meet.
"""

import ipaddress
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.ranks.guard import end_process
from hrtemvae_hpc.ranks.resources import bind_device
from hrtemvae_hpc.ranks.world import World, join_world

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)  # for a rank that doesn't answer


class TorchrunWorld(World):
    """The world of the ranks that torchrun started, without MPI."""

    def __init__(self) -> None:
        dist.init_process_group(_backend(), timeout=_PATIENCE)
        super().__init__()
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])

    def allgather(self, value: T, patience: float | None = None) -> list[T]:
        """Each rank's ``value``, by rank."""
        values: list[T | None] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def leave(self, code: int) -> NoReturn:
        """End this rank with ``code``."""
        end_process(code)

    abort = leave


def join_training(_: Callable[[], bool]) -> World:
    """The world this process was launched into, ready for `sum_over_ranks` and DistributedDataParallel.

    Its ranks stop only where they agree to, after a step. Raises InputError when a launcher started several copies that
    don't know of each other.
    """
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            world: World = TorchrunWorld()
        else:
            world = join_world()
            if world.size > 1:
                _meet(world)
        if world.size > 1:
            _check_devices(world)
    except (RuntimeError, OSError) as error:
        what = " ".join(str(error).split())[:300]
        raise RankFailed(f"the ranks can't meet on {socket.gethostname()}: {what}") from error
    return world


def _check_devices(world: World) -> None:
    """Raise InputError if two ranks have the same GPU. A launcher may show each rank only its own, as the first."""
    device = bind_device(world)
    uuid = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    gathered = [place for place in world.allgather((world.host, uuid)) if place[1]]
    for host in sorted({host for host, _ in gathered}):
        there = [gpu for at, gpu in gathered if at == host]
        if len(set(there)) < len(there):
            raise InputError(f"{len(there)} ranks share {len(set(there))} GPUs of {host}; start one rank per GPU.")


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of ``values`` over all ranks, in place and returned."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _meet(world: World) -> None:
    """Start torch.distributed among the ranks of an MPI world."""
    address, interface = ("127.0.0.1", "lo") if world.local_size == world.size else _reachable_address()
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store = TCPStore(address, 0, world.size, True, _PATIENCE, wait_for_workers=False) if world.is_root else None
    place = world.allgather((address, store.port) if store else ("", 0))[0]
    store = store or TCPStore(*place, world.size, False, _PATIENCE)
    dist.init_process_group(_backend(), store=store, rank=world.rank, world_size=world.size, timeout=_PATIENCE)


def _reachable_address() -> tuple[str, str]:
    """The address by which other hosts reach this one, and its interface ("" where that is not known).

    Not the one of the hostname: on many systems that is a loopback address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # from the range for documentation; nothing is sent
            address = str(probe.getsockname()[0])
        except OSError:
            address = ""
    every = ((name, a) for name, addresses in psutil.net_if_addrs().items() for a in addresses)
    ipv4 = [(a.address, name) for name, a in every if a.family == socket.AF_INET]
    usable = [(ip, name) for ip, name in ipv4 if not ipaddress.ip_address(ip).is_loopback]
    return next((f for f in usable if f[0] == address), usable[0] if usable else ("127.0.0.1", ""))

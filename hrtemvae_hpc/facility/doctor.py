"""The doctor: does everything that an analysis needs work together here, on these ranks, in this image?"""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import HrtemvaeError, InputError
from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, load_model
from hrtemvae_hpc.movie import hdf5_check
from hrtemvae_hpc.ranks.guard import rank_of_launcher
from hrtemvae_hpc.ranks.node import node_free_bytes
from hrtemvae_hpc.ranks.resources import bind_device, device_name
from hrtemvae_hpc.ranks.world import World, join_world
from hrtemvae_hpc.windows.engine import Engine

OK, WARNING, WRONG = "ok", "warning", "WRONG"
_SHM_OF_A_RANK = 64 * 2**20


@dataclass(frozen=True)
class Check:
    """One finding: what was checked, the verdict, what was found, and what to do if it isn't OK."""

    what: str
    verdict: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Place:
    """What a rank sees where it runs."""

    rank: int
    host: str
    device: str
    processors: int
    checks: list[Check] = field(default_factory=list)  # those that each node must pass


def examine(as_json: bool) -> int:
    """Examine all ranks, print the findings on rank 0, and return 0, or 2 if something is wrong."""
    show = _print_json if as_json else _print
    try:
        world = join_world()
    except InputError as error:
        if rank_of_launcher() == 0:
            show([_program(), Check("ranks", WRONG, "each rank is alone", str(error))])
        return InputError.exit_code
    places = world.allgather(_inspect(world))
    checks = [_program(), _ranks(world), _mpi(world), _devices(places), _threads(places), *_of_nodes(places)]
    wrong = any(c.verdict == WRONG for c in checks)
    if world.is_root:
        show(checks)
    return world.leave(InputError.exit_code if wrong else 0)


def _print_json(checks: list[Check]) -> None:
    verdicts = {check.verdict for check in checks}
    worst = next(verdict for verdict in (WRONG, WARNING, OK) if verdict in verdicts)
    print(json.dumps({"checks": [asdict(check) for check in checks], "verdict": worst.lower()}))


def _print(checks: list[Check]) -> None:
    for check in checks:
        print(f"{check.what:10} {check.verdict:8} {check.found}")
        if check.advice:
            print(f"{'':10} {'':8} -> {check.advice}")
    worst = [c.what for c in checks if c.verdict == WRONG]
    unsure = [c.what for c in checks if c.verdict == WARNING]
    if worst:
        print(f"verdict: this can't work yet: {', '.join(worst)}")
    elif unsure:
        print(f"verdict: works, but look at: {', '.join(unsure)}")
    else:
        print("verdict: everything works")


def _program() -> Check:
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    where = f"in the image {image}" if image else "outside an image"
    leaks = [name for name in ("PYTHONPATH", "PYTHONHOME") if os.environ.get(name)]
    found = f"hrtemvae {__version__}, PyTorch {torch.__version__}, {where}"
    if leaks:
        return Check(
            "program", WARNING, found, f"unset {' and '.join(leaks)}, which may bring in another Python's packages."
        )
    return Check("program", OK, found)


def _ranks(world: World) -> Check:
    hosts = sorted(set(world.allgather(world.host)))
    found = f"{world.size} on {', '.join(hosts)}"
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if tasks.isdigit() and int(tasks) != world.size:
        return Check("ranks", WRONG, f"{found}, of {tasks} Slurm tasks", "start with `srun --mpi=pmix`.")
    waiting = os.environ.get("SLURM_NTASKS", "")
    if not tasks and waiting.isdigit() and int(waiting) > world.size:
        advice = f"the job has {waiting} tasks: start with `srun --mpi=pmix`, or the site's launcher."
        return Check("ranks", WARNING, found, advice)
    speaks = [name for name in ("PMIX_RANK", "PMI_RANK", "PMI_FD") if name in os.environ]
    return Check("ranks", OK, found + (f", by {speaks[0].split('_')[0]}" if speaks else ""))


def _mpi(world: World) -> Check:
    if world.comm is None:
        return Check("MPI", OK, "none, for a world of one")
    name, library = world.library()
    chosen = os.environ.get("MPI4PY_LIBMPI")
    if chosen and Path(chosen).resolve() != Path(library).resolve():
        return Check(
            "MPI", WRONG, f"{name} ({library})", f"MPI4PY_LIBMPI asks for {chosen}; bind its folder into the image."
        )
    return Check("MPI", OK, f"{name} ({library})")


def _inspect(world: World) -> Place:
    try:
        device = _usable(bind_device(world))
    except (RuntimeError, ImportError, HrtemvaeError) as error:
        device = f"unusable ({' '.join(str(error).split())})"
    checks = [check(world) for check in (_driver, _memory, _shared_memory, _binds, _hdf5, *_folders())]
    return Place(world.rank, socket.gethostname(), device, len(os.sched_getaffinity(0)), checks)


def _usable(device: torch.device) -> str:
    """The name of ``device``, once it has encoded a window: on a GPU, kernels are compiled for that."""
    model = load_model(DEFAULT_MODEL)
    size = model.architecture.window
    noise = np.random.default_rng(0).random((1, size, size), np.float32)
    Engine(model, device, "fp32", "window", size).encode(noise, np.ones((1, 1), bool))
    return device_name(device)


def _devices(places: list[Place]) -> Check:
    found = ", ".join(f"rank {p.rank}: {p.device}" for p in places)
    if any("unusable" in p.device for p in places):
        return Check(
            "devices",
            WRONG,
            found,
            "unless it says what is missing: driver and PyTorch build don't match, or another job uses the GPU.",
        )
    kinds = {p.device.split(":")[0] for p in places}
    if len(kinds) > 1:
        return Check("devices", WARNING, found, "ranks with and without GPUs: the last tiles wait for the slow ones.")
    return Check("devices", OK, found)


def _threads(places: list[Place]) -> Check:
    counts = sorted({p.processors for p in places})
    given = os.environ.get("OMP_NUM_THREADS", "")
    found = f"{'-'.join(map(str, counts))} processors per rank, OMP_NUM_THREADS {given or 'unset'}"
    if given == "1" and counts[0] > 1 and len(places) == 1:
        return Check(
            "threads", WARNING, found, f"one thread on {counts[0]} processors: unset it, or set it to {counts[0]}."
        )
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdigit() and int(asked) > counts[0]:
        advice = f"{asked} CPUs per task were requested: pass --cpus-per-task to srun too, it doesn't inherit it."
        return Check("threads", WARNING, found, advice)
    return Check("threads", OK, found)


def _of_nodes(places: list[Place]) -> Iterator[Check]:
    """One line per check if all nodes agree on the verdict, else one per node that is worse than others."""
    seen: dict[str, dict[str, Check]] = {}
    for place in places:
        for check in place.checks:
            seen.setdefault(check.what, {}).setdefault(place.host, check)
    for hosts in seen.values():
        verdicts = {c.verdict for c in hosts.values()}
        if len(verdicts) == 1:
            yield next(iter(hosts.values()))
        else:
            for host, check in hosts.items():
                if check.verdict != OK:
                    yield Check(check.what, check.verdict, f"{host}: {check.found}", check.advice)


def _driver(_: World) -> Check:
    cuda, rocm = torch.version.cuda, torch.version.hip
    build = f"PyTorch for CUDA {cuda}" if cuda else f"PyTorch for ROCm {rocm}" if rocm else "PyTorch for CPUs"
    nvidia = Path("/proc/driver/nvidia/version")
    driver = (
        next((w for w in nvidia.read_text().split() if w[:1].isdigit() and "." in w), "?") if nvidia.exists() else ""
    )
    amd = Path("/dev/kfd").exists()
    here = f"NVIDIA driver {driver}" if driver else "AMD driver" if amd else "no GPU driver"
    if (driver or amd) and not torch.cuda.is_available():
        advice = "start the image with --nv or --rocm (the Slurm scripts do), or build it with PyTorch for this GPU."
        return Check("driver", WRONG if cuda or rocm else WARNING, f"{here}, {build}, but no device is seen", advice)
    return Check("driver", OK, f"{here}, {build}")


def _memory(world: World) -> Check:
    free, total, sharing = node_free_bytes(), psutil.virtual_memory().total, world.local_size
    found = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free, for {sharing} rank{'s' * (sharing > 1)}"
    if free / sharing < 1e9:
        return Check("memory", WARNING, found, "less than 1 GB per rank: request more memory or fewer ranks per node.")
    return Check("memory", OK, found)


def _shared_memory(world: World) -> Check:
    needed = _SHM_OF_A_RANK * world.local_size
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        advice = "MPI passes messages of a node through it: bind it into the image."
        return Check("/dev/shm", WRONG if world.local_size > 1 else WARNING, "absent", advice)
    if free < needed:
        return Check("/dev/shm", WARNING, f"{free / 1e6:.0f} MB free", "small for MPI: start fewer ranks per node.")
    return Check("/dev/shm", OK, f"{free / 1e9:.1f} GB free")


def _binds(_: World) -> Check:
    """The folders that HRTEMVAE_BIND and the container program were asked to show."""
    given = os.environ.get("APPTAINER_BIND", os.environ.get("SINGULARITY_BIND", ""))
    entries = [*os.environ.get("HRTEMVAE_BIND", "").split(), *filter(None, given.split(","))]
    asked = [place for entry in entries for place in entry.split(":")[1:2] or [entry]]
    absent = [place for place in asked if not Path(place).exists()]
    found = ", ".join(dict.fromkeys(asked)) or "none requested"
    if absent:
        return Check("binds", WRONG, found, f"{', '.join(absent)} can't be seen: bind it, or take it off the list.")
    return Check("binds", OK, found)


def _hdf5(_: World) -> Check:
    filters = hdf5_check.filters()
    found = f"HDF5 {hdf5_check.version()}, reads {', '.join(name for name, usable in filters.items() if usable)}"
    if missing := [name for name, usable in filters.items() if not usable]:
        return Check("HDF5", WARNING, found, f"can't read {', '.join(missing)}: reinstall hdf5plugin.")
    return Check("HDF5", OK, found)


def _folders() -> list[Callable[[World], Check]]:
    checks = [lambda _: _folder("results", Path.cwd())]
    if scratch := os.environ.get("HRTEMVAE_SCRATCH"):
        checks.append(lambda _: _folder("scratch", Path(scratch)))
    return checks


def _folder(what: str, folder: Path) -> Check:
    try:
        locks = hdf5_check.supports_locks(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "choose a folder that every node can write to, and bind it into the image."
        return Check(what, WRONG, f"{folder} can't be written ({error.strerror})", advice)
    found = f"{folder}, {free / 1e9:,.0f} GB free, " + ("HDF5 can lock files" if locks else "no locks for HDF5")
    if free < 10**9:
        return Check(what, WARNING, found, "little room for results.")
    if not locks:
        return Check(what, WARNING, found, "set HDF5_USE_FILE_LOCKING=FALSE; movies are read without locks anyway.")
    return Check(what, OK, found)

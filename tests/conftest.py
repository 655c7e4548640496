"""What the tests share: small models and movies, the program as a user starts it, and the data beside the checkout."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import hypothesis
import numpy as np
import pytest
import tifffile
import torch
from commands import FORK_SERVER, Outcome, Program, environment

from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.model_file import Model, load_model, save_model
from hrtemvae_hpc.model.network import Encoder

SHARED = Path(os.environ.get("HRTEMVAE_SHARED", Path(__file__).parents[2] / "shared"))
hypothesis.settings.register_profile("any machine", deadline=None, print_blob=True)
hypothesis.settings.load_profile("any machine")
MAPS = ("mean", "variance", "spearman", "time_correlated_variance")
CERTAINTY = (
    "noise/data",
    "excess_variance/data",
    "change/data",
    "change/frame",
    "significance/data",
    "significance/p_value",
    "significance/largest_rho",
    "reproducibility/even",
    "reproducibility/odd",
    "reproducibility/correlation",
)


LONGEST = ("test_analyze.py", "test_engine.py", "test_evaluation.py", "test_training.py", "test_memory.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one in the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked gpu wait for a machine with one, in CI too."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")


def unavailable(reason: str, details: str = "") -> NoReturn:
    """Skip a test that this machine can't run, and say why; CI must be able to run it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}\n{details}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the oracle and the real movies; without it a test skips, but not in CI."""
    if not SHARED.is_dir():
        unavailable(f"{SHARED} is not on this machine; set HRTEMVAE_SHARED to a folder with the oracle")
    return SHARED


def random_model(architecture: Architecture, seed: int = 0) -> Model:
    """A network with random weights whose latents are shuffled in its order."""
    torch.manual_seed(seed)
    encoder = Encoder(architecture)
    for norm in encoder.norm:
        norm.get_buffer("running_mean").normal_(0, 0.1)
        norm.get_buffer("running_var").uniform_(0.5, 2)
    order = tuple(torch.randperm(architecture.latents).tolist())
    return Model("random", encoder.eval().requires_grad_(False), None, order)


TINY = Architecture(window=16, channels=(4, 6), hidden=24, latents=5)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(random_model(TINY), path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_model_path: Path) -> Model:
    return load_model(tiny_model_path)


def drifting_pixels(frames: int, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Noise over fringes that turn slowly [frames, rows, columns], uint16."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    angle = np.linspace(0.3, 0.6, frames)[:, None, None]
    fringes = np.cos((y * np.sin(angle) + x * np.cos(angle)) * 2 * np.pi / 7)
    pixels: np.ndarray = random.poisson(200 * (1.2 + fringes)).astype(np.uint16)
    return pixels


@pytest.fixture(scope="session")
def movie_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 70 x 90: 7 x 10 windows of the tiny model, in 2 x 3 blocks."""
    path = tmp_path_factory.mktemp("movie") / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=drifting_pixels(12, 70, 90), chunks=(1, 70, 90), compression="gzip")
    return path


def write_micrograph(path: Path, seed: int, period: float = 7.0, size: int = 200, pixel_size: float = 0.02) -> Path:
    """Fringes on the left half, noise on the right."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    fringes = np.where(x < size / 2, np.cos(2 * np.pi * (0.6 * y + 0.8 * x) / period), 0)
    image = random.poisson(100 * (1 + 0.5 * fringes)).astype(np.uint16)
    tifffile.imwrite(path, image, imagej=True, resolution=(1 / pixel_size, 1 / pixel_size), metadata={"unit": "nm"})
    return path


@pytest.fixture(scope="session")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micrographs")
    for i in range(6):
        write_micrograph(folder / f"m{i}.tif", i)
    (folder / "broken.dm3").write_bytes(b"no micrograph")
    (folder / "notes.txt").write_text("not looked at")
    tifffile.imwrite(folder / "small.tif", np.ones((20, 20), np.uint8))
    return folder


@pytest.fixture(scope="session")
def run_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Program]]:
    """The program, to be run in a folder: processes of a server that has loaded it."""
    path = str(tmp_path_factory.mktemp("server") / "s")
    programs: list[Program] = []

    def program(folder: Path) -> Program:
        programs.append(Program(path, folder))
        return programs[-1]

    with subprocess.Popen(
        [sys.executable, FORK_SERVER, "serve", path],
        env=environment() | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},  # fewer pages to copy when it forks
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield program
        for each in programs:
            each.end()


@pytest.fixture
def hrtemvae(tmp_path: Path, run_in: Callable[[Path], Program]) -> Iterator[Program]:
    """The program in the folder of the test."""
    program = run_in(tmp_path)
    yield program
    program.end()


def on_a_small_disk(disk: Path, size: str, script: str) -> str:
    """Run ``script`` with a disk of ``size`` mounted at ``disk``, for it alone; all it printed. It must end with 0."""
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
         f"mount -t tmpfs -o size={size} tmpfs {disk} || exit 77\n{script}"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
    )  # fmt: skip
    if "unshare: " in done.stdout or done.returncode == 77:
        unavailable("this machine lets nobody mount a small disk of their own", done.stdout)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def read_maps(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        maps = {name: file[f"entry/{name}/data"][...] for name in MAPS}
        maps |= {place: file[f"entry/{place}"][...] for place in CERTAINTY}
        return maps | {"valid_frames": file["entry/valid_frames/data"][...]}


def read_processes(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        group = file["entry/processes"]
        names = ("data", "weights", "direction", "reproducibility", "series", "span")
        return {f"processes/{name}": group[name][...] for name in names if name in group}


def read_series(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {f"series/{name}": file["entry/series"][name][...] for name in ("data", "row", "column", "frame")}


def assert_same_maps(one: Path, other: Path) -> None:
    """Equal to the bit, NaN where NaN."""
    left, right = read_maps(one), read_maps(other)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    further = [read_processes(path) | read_series(path) for path in (one, other)]
    assert further[0].keys() == further[1].keys()
    for name, values in further[0].items():
        np.testing.assert_array_equal(values, further[1][name], err_msg=name)


def assert_refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    """The user's mistake is reported in one sentence that contains ``words``, without a traceback."""
    assert outcome.code == code, outcome.text
    assert "Traceback" not in outcome.text, outcome.text
    sentences = [line for line in outcome.text.splitlines() if line.startswith(("hrtemvae:", "hrtemvae "))]
    assert len(sentences) == 1, outcome.text
    for word in words:
        assert word in sentences[0], outcome.text

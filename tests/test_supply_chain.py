"""The lock files name all that is installed, in the environment and in the image, with hashes."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.facility import image

ROOT = Path(__file__).parents[1]
IMAGE_LOCK = ROOT / "containers" / "requirements.lock"
LOCKS = sorted([*ROOT.glob("requirements*.lock"), IMAGE_LOCK])
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
# What torch 2.13.0 needs according to the package index, and the packages that the extras of cuda-toolkit stand for.
OF_CUDA = """
filelock typing-extensions>=4.10.0 setuptools>=77.0.3 sympy>=1.13.3 networkx>=2.5.1 jinja2 fsspec>=0.8.5
cuda-toolkit==13.0.3 cuda-bindings<14,>=13.0.3 nvidia-cudnn-cu13==9.20.0.48 nvidia-cusparselt-cu13==0.8.1
nvidia-nccl-cu13==2.29.7 nvidia-nvshmem-cu13==3.4.5 triton==3.7.1
nvidia-cublas nvidia-cuda-runtime nvidia-cufft nvidia-cufile nvidia-cuda-cupti nvidia-curand nvidia-cusolver
nvidia-cusparse nvidia-nvjitlink nvidia-cuda-nvrtc nvidia-nvtx cuda-pathfinder markupsafe mpmath
"""


def requirements(lock: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of ``lock`` and its hashes."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        requirement, *hashes = line.split(" --hash=")
        yield Requirement(requirement), hashes


def pins(*locks: Path, python: str) -> dict[str, Version]:
    """The version of each package that ``locks`` name for ``python`` on Linux."""
    environment = {**LINUX, "python_version": python, "python_full_version": f"{python}.9"}
    return {
        canonicalize_name(r.name): Version(next(iter(r.specifier)).version)
        for lock in locks
        for r, _ in requirements(lock)
        if r.marker is None or r.marker.evaluate(environment)
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_requirement_has_one_version_and_hashes(lock: Path) -> None:
    locked = list(requirements(lock))
    assert locked
    for requirement, hashes in locked:
        assert requirement.url is None
        assert [s.operator in ("==", "===") and "*" not in s.version for s in requirement.specifier] == [True]
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", h.strip()) for h in hashes)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_the_locks_cover_what_pytorch_for_cuda_needs(python: str) -> None:
    for base in [ROOT / "requirements.lock", *[IMAGE_LOCK] * (python == "3.11")]:
        locked = pins(base, ROOT / "requirements-cuda.lock", python=python)
        assert str(locked["torch"]) == "2.13.0"
        for needed in map(Requirement, OF_CUDA.split()):
            assert locked[needed.name] in needed.specifier, needed


@pytest.mark.parametrize("base", [ROOT / "requirements.lock", IMAGE_LOCK], ids=["environment", "image"])
def test_the_locks_cover_what_the_installed_pytorch_needs(base: Path) -> None:
    """The build for CPUs where the tests run, or else that of the other lock file."""
    build = "cuda" if importlib.metadata.version("torch") == "2.13.0" else "cpu"
    locked = pins(base, ROOT / f"requirements-{build}.lock", python="3.11")
    assert str(locked["torch"]) == importlib.metadata.version("torch")
    seen, waiting = set(), ["torch"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate(LINUX):
                assert locked[canonicalize_name(needed.name)] in needed.specifier, f"{name} needs {needed}"
                waiting += {canonicalize_name(needed.name)} - seen
    assert {"sympy", "mpmath", "markupsafe"} <= seen


def test_an_image_is_built_again_when_the_lock_file_of_pytorch_changes(tmp_path: Path) -> None:
    lock = tmp_path / "my.lock"
    keys = set()
    for text in ("torch==2.13.0", "torch==2.14.0"):
        lock.write_text(text)
        keys |= {image.content_key(lock, []), image.content_key(text, [])}
    assert len(keys) == 4


def test_builds_of_pytorch_are_named_by_their_lock_files(tmp_path: Path) -> None:
    for build in ("cpu", "cuda"):
        assert image.torch_lock(build) == ROOT / f"requirements-{build}.lock"
    with pytest.raises(InputError, match=r"--torch torch==2\.13\.0: choose cpu, cuda, or the path of a lock file"):
        image.torch_lock("torch==2.13.0")

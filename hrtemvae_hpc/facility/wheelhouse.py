"""The wheelhouse of an image: every wheel it is made of, and a list of their hashes, to install without network."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import file_sha256

IMAGE_PYTHON = (3, 11)
_IMAGE_GLIBC = 36  # glibc 2.36, Debian 12
_BESIDE_THE_PACKAGE = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def sources(checkout: Path) -> list[Path]:
    """The files of ``checkout`` that the package is made of."""
    package = (f for f in (checkout / "hrtemvae_hpc").rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sorted([*package, *(checkout / name for name in _BESIDE_THE_PACKAGE)])


def fill(wheelhouse: Path, checkout: Path, lock: Path, torch: Path | str, say: Callable[[str], None]) -> Path:
    """Download what ``lock`` and ``torch``, the lock file of PyTorch, name, by hash, and build our own wheel.

    If ``torch`` is a requirement for pip instead, it and its further dependencies are downloaded without hashes.
    Returns the list of all wheels with their hashes, for ``pip install --require-hashes``.
    Raises InputError if a download fails or a hash is missing or differs.
    """
    wheelhouse.mkdir()
    for locked in (lock, torch):
        if isinstance(locked, Path):
            say(f"wheelhouse: packages in {locked.name}")
            _pip("download", "--no-deps", "--require-hashes", "-r", locked, "-d", wheelhouse, *_for_image())
    if isinstance(torch, str):
        say(f"warning: {torch} and what it needs beyond {lock.name} are not verified by hashes")
        pins = wheelhouse.parent / "pins.txt"
        pins.write_text("".join(f"{n}=={v}\n" for n, v in map(_name_and_version, wheelhouse.glob("*.whl"))))
        _pip("download", torch, "-c", pins, "-d", wheelhouse, "--find-links", wheelhouse, *_for_image())
    say("wheelhouse: hrtemvae-hpc")
    tree = wheelhouse.parent / "package"
    for source in sources(checkout):
        target = tree / source.relative_to(checkout)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    _pip("wheel", "--no-deps", "--no-build-isolation", tree, "-w", wheelhouse)
    listed = wheelhouse / "wheels.lock"
    with listed.open("w") as file:
        for wheel in sorted(wheelhouse.glob("*.whl")):
            name, version = _name_and_version(wheel)
            file.write(f"{name}=={version} --hash=sha256:{file_sha256(wheel)}\n")
    return listed


def _name_and_version(wheel: Path) -> tuple[str, str]:
    name, version, *_ = wheel.name.split("-")
    return name.replace("_", "-"), version


def _for_image() -> list[str]:
    """Options for wheels of the image's Python, whichever Python runs this."""
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_IMAGE_GLIBC, 4, -1)]
    tags += [f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    major, minor = IMAGE_PYTHON
    abis = (f"cp{major}{minor}", "abi3", "none")
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={major}.{minor}"]
    return options + [f"--abi={abi}" for abi in abis] + [f"--platform={tag}" for tag in tags]


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        error = " ".join(done.stderr[max(done.stderr.rfind("ERROR"), 0) :].split())
        raise InputError(
            f"pip {arguments[0]} failed: {error} Check the network, the lock file, and whether PIP_FIND_LINKS names "
            "the folder of the wheels that the package index lacks."
        )

"""Packages that were replaced, are missing or not locked: nothing but what the lock files name is installed."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.facility import wheelhouse

ROOT = Path(__file__).parents[2]


def wheel(folder: Path, name: str, version: str, *needs: str, files: dict[str, bytes] | None = None) -> str:
    """Make a wheel in ``folder``; its line in a lock file."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        for file, content in (files or {}).items():
            archive.writestr(file, content)
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


BACKEND = """
import pathlib, shutil
def build_editable(folder, settings=None, metadata=None):
    wheel, = pathlib.Path("wheels").glob("hrtemvae_hpc-*.whl")
    return shutil.copy(wheel, folder).rpartition("/")[2]
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with lock files of small packages, whose wheels are in its folder ``wheels``, and no network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in (("CONFIG_FILE", os.devnull), ("NO_INDEX", "1"), ("FIND_LINKS", str(wheels))):
        monkeypatch.setenv(f"PIP_{name}", value)
    pip = importlib.metadata.distribution("pip")
    inside = [f for f in pip.files or [] if f.parts[0] == "pip" and f.suffix != ".pyc"]
    locked = {
        "-pip": wheel(wheels, "pip", pip.version, files={str(f): f.read_binary() for f in inside}),
        "": wheel(wheels, "base", "1"),
        "-cpu": wheel(wheels, "torch", "2.13.0+cpu", "base"),
        "-cuda": wheel(wheels, "torch", "2.13.0", "base", "cuda").replace("==", "===") + wheel(wheels, "cuda", "13"),
    }
    for name, text in locked.items():
        (tmp_path / f"requirements{name}.lock").write_text(text)
    wheel(wheels, "hrtemvae-hpc", "0")
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make_env(checkout: Path, *words: str) -> tuple[int, str, set[str]]:
    """The exit code of ``make env``, what it printed, and the distributions it installed, such as torch-2.13.0."""
    done = subprocess.run(
        ["make", "env", f"PYTHON={sys.executable}", *words],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    installed = {path.stem for path in checkout.glob(".venv/lib/python3*/site-packages/*.dist-info")}
    assert (checkout / ".venv/.ready").exists() == (done.returncode == 0)
    return done.returncode, done.stdout, installed


def replace_wheel(wheels: Path, name: str, version: str) -> None:
    """Other content under the name of a wheel, as from a compromised index."""
    with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "a") as archive:
        archive.writestr("stolen.py", "")


def test_a_build_that_was_replaced_gives_way_to_the_next_locked_one(checkout: Path) -> None:
    """So does a missing build; the one for CPUs, which pip prefers by its version, isn't taken again."""
    replace_wheel(checkout / "wheels", "torch", "2.13.0+cpu")
    code, text, found = make_env(checkout)
    assert code == 0, text
    assert "DO NOT MATCH THE HASHES" in text
    assert "can't be installed by requirements-cpu.lock" in text
    assert found >= {"base-1", "torch-2.13.0", "cuda-13", "hrtemvae_hpc-0"}
    assert not list(checkout.glob(".venv/lib/python3*/site-packages/stolen.py"))


def test_pip_itself_is_installed_by_hash(checkout: Path) -> None:
    """Even if the pip at the start has the same version."""
    replace_wheel(checkout / "wheels", "pip", importlib.metadata.version("pip"))
    code, text, found = make_env(checkout)
    assert code == 2, text
    assert "DO NOT MATCH THE HASHES" in text
    assert "base-1" not in found


def test_a_lock_file_without_hashes_is_refused(checkout: Path) -> None:
    (checkout / "my.lock").write_text("torch==2.13.0+cpu\n")
    code, text, found = make_env(checkout, "TORCH_LOCK=my.lock")
    assert code == 2, text
    assert "torch-2.13.0+cpu" not in found


def test_an_unverified_environment_says_so(checkout: Path) -> None:
    wheel(checkout / "wheels", "torch", "2.14.0")
    code, text, found = make_env(checkout, "UNVERIFIED_TORCH=torch==2.14.0")
    assert code == 0, text
    assert "torch-2.14.0" in found
    assert "not verified" in text


@pytest.fixture
def package(checkout: Path) -> Path:
    """A checkout whose own package setuptools can build."""
    (checkout / "hrtemvae_hpc").mkdir()
    (checkout / "hrtemvae_hpc/__init__.py").touch()
    (checkout / "setup.cfg").write_text("[metadata]\nname = hrtemvae-hpc\nversion = 1\n[options]\npackages = find:\n")
    (checkout / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "setuptools.build_meta"\n')
    for name in ("README.md", "LICENSE"):
        (checkout / name).touch()
    return checkout


def fill(package: Path, torch: Path | str) -> tuple[list[str], str]:
    """The list of wheels of an image, and what was printed."""
    said: list[str] = []
    listed = wheelhouse.fill(package / "wheelhouse", package, package / "requirements.lock", torch, said.append)
    return listed.read_text().splitlines(), "\n".join(said)


def test_an_image_is_made_of_what_the_lock_files_name(package: Path) -> None:
    listed, said = fill(package, package / "requirements-cpu.lock")
    locked = [(package / f"requirements{name}.lock").read_text().strip() for name in ("", "-cpu")]
    assert {*locked} < {*listed}
    assert next(line for line in listed if line not in locked).startswith("hrtemvae-hpc==1 --hash=sha256:")
    assert len(listed) == 3
    assert "warning" not in said


@pytest.mark.parametrize(("name", "version"), [("base", "1"), ("torch", "2.13.0+cpu")])
def test_no_image_is_made_of_another_wheel_under_the_same_name(name: str, version: str, package: Path) -> None:
    replace_wheel(package / "wheels", name, version)
    with pytest.raises(InputError, match=f"DO NOT MATCH THE HASHES.*{name}==.*PIP_FIND_LINKS"):
        fill(package, package / "requirements-cpu.lock")


def test_an_unverified_image_says_so(package: Path) -> None:
    wheel(package / "wheels", "torch", "2.14.0")
    listed, said = fill(package, "torch==2.14.0")
    assert any(line.startswith("torch==2.14.0 --hash=") for line in listed)
    assert "warning: torch==2.14.0 and what it needs" in said

"""The image: built, verified, reused, and never replaced by a build that failed."""

import hashlib
import json
import subprocess
from pathlib import Path

import h5py
import pytest
from commands import Outcome
from conftest import assert_refused

from hrtemvae_hpc import __version__


def hrtemvae(*words: object) -> Outcome:
    done = subprocess.run(["hrtemvae", *map(str, words)], capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout + done.stderr)


def test_an_image_passes_its_test_and_describes_itself(image: Path) -> None:
    tested = hrtemvae("image", "test", image)
    assert tested.code == 0, tested.text
    assert "one rank and two give the same maps" in tested.text
    printed = hrtemvae("image", "info", image).text
    for word in (__version__, "PyTorch", "Open MPI", "HDF5", hashlib.sha256(image.read_bytes()).hexdigest()):
        assert word in printed


def test_an_image_is_built_once_for_its_content(image: Path) -> None:
    before = image.stat()
    again = hrtemvae("image", "build", "-o", image)
    assert again.code == 0
    assert "is up to date" in again.text
    assert image.stat().st_mtime == before.st_mtime


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (("--torch", "torch==2.13.0"), 2, ["cpu, cuda, or the path"]),
        (("--unverified-torch", "torch==0.0.0"), 2, ["pip", "torch==0.0.0"]),
        (("--build-arg", "RELEASE"), 2, ["KEY=VALUE"]),
        (("--build-arg", "RELEASE=nowhere"), 4, ["building the image failed", "nowhere"]),
    ],
)
def test_a_failed_build_leaves_the_old_image(
    wrong: tuple[str, str], code: int, words: list[str], image: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.sif"
    old.hardlink_to(image)
    refused = hrtemvae("image", "build", "-o", old, *wrong)
    assert refused.code == code, refused.text
    assert "Traceback" not in refused.text
    for word in words:
        assert word in refused.text
    assert old.samefile(image)
    assert [p.name for p in tmp_path.iterdir()] == ["old.sif"]


def test_a_foreign_file_is_not_replaced(image: Path, tmp_path: Path) -> None:
    (tmp_path / "old.sif").write_bytes(b"the only copy of something else")
    assert_refused(hrtemvae("image", "build", "-o", tmp_path / "old.sif"), "is not an image of this program")
    assert (tmp_path / "old.sif").read_bytes() == b"the only copy of something else"


def test_what_is_not_an_image_of_this_program_is_refused(tmp_path: Path, image: Path) -> None:
    assert_refused(hrtemvae("image", "info", tmp_path / "none.sif"), "hrtemvae image build")
    (tmp_path / "text.sif").write_text("no image")
    assert_refused(hrtemvae("image", "test", tmp_path / "text.sif"), "not an image of this program")


def test_without_apptainer_it_says_so(tmp_path: Path, image: Path) -> None:
    python = Path(subprocess.run(["which", "hrtemvae"], capture_output=True, text=True, check=True).stdout.strip())
    refused = subprocess.run(
        [python, "image", "info", image], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert_refused(Outcome(refused.returncode, refused.stdout + refused.stderr), "apptainer", "PATH")


def test_nothing_of_the_hosts_python_shadows_the_images(image: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('shadowed')")
    done = subprocess.run(
        ["apptainer", "run", "--env", f"PYTHONPATH={tmp_path}", image, "--version"],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_a_result_names_the_image_it_was_made_in(image: Path, tmp_path: Path) -> None:
    run = ["apptainer", "--quiet", "run", str(image)]
    for words in (
        ["simulate", "-o", "m.h5", "--frames", "4", "--size", "192", "192"],
        ["analyze", "m.h5", "--step", "32"],
    ):
        done = subprocess.run([*run, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "m.maps.h5") as file:
        process = file["entry/process"]
        assert process["image"].asstr()[()] == str(image)
        assert process["image_sha256"].asstr()[()] == hashlib.sha256(image.read_bytes()).hexdigest()


def test_bad_input_from_inside(image: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["apptainer", "--quiet", "run", image, "analyze", "none.h5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert_refused(Outcome(done.returncode, done.stdout + done.stderr), "none.h5")


def test_labels(image: Path) -> None:
    inspected = json.loads(
        subprocess.run(["apptainer", "inspect", "--json", image], capture_output=True, check=True).stdout
    )
    labels = inspected["data"]["attributes"]["labels"]
    assert labels["hrtemvae.version"] == __version__
    assert len(labels["hrtemvae.lock"]) == len(labels["hrtemvae.torch"]) == len(labels["hrtemvae.content"]) == 64

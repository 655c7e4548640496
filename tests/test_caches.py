"""Compiled code is kept on the node where the home can't be written, in a folder that is the user's alone."""

import os
from pathlib import Path

import pytest
from commands import Program

from hrtemvae_hpc.caches import keep_caches


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on a node without a home."""
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for variable in ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR"):
        monkeypatch.setenv(variable, "")  # so that it is restored
        monkeypatch.delenv(variable)
    monkeypatch.setenv("MPLCONFIGDIR", "of the user")
    return tmp_path / f"hrtemvae-{os.getuid()}"


def test_libraries_keep_compiled_code_on_the_node(caches: Path) -> None:
    for _ in range(2):
        keep_caches()
        assert os.environ["NUMBA_CACHE_DIR"] == str(caches / "numba")
        assert os.environ["MPLCONFIGDIR"] == "of the user"
        assert caches.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in caches.iterdir()} == {"numba", "triton", "miopen", "matplotlib"}


@pytest.mark.parametrize("of_others", ["open", "link", "file"])
def test_a_folder_that_others_may_write_is_not_used(caches: Path, tmp_path: Path, of_others: str) -> None:
    if of_others == "open":
        caches.mkdir()
        caches.chmod(0o777)
    elif of_others == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        caches.symlink_to(tmp_path / "elsewhere")
    else:
        caches.write_text("")
    keep_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_node_without_a_folder_for_temporary_files(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    keep_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_home_that_can_be_written_is_used(caches: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    keep_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ
    assert not caches.exists()


def test_numba_compiles_for_later_commands_without_a_home(hrtemvae: Program, tmp_path: Path) -> None:
    words = ("segments", "--simulated", 20, "--window", 16, "-o", "segments.h5")
    done = hrtemvae(*words, variables={"HOME": "/nonexistent", "TMPDIR": str(tmp_path)})
    assert done.code == 0, done.text
    assert list((tmp_path / f"hrtemvae-{os.getuid()}" / "numba").iterdir())

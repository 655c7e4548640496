"""Only files that this program wrote are replaced or deleted, and no input ever is."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.analysis.parts import Parts, TileMaps
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import OwnFolder, append_to_log, replacing
from hrtemvae_hpc.outputs import Output, check_outputs, is_model, is_movie, is_numbers, is_page, is_picture, is_result
from hrtemvae_hpc.windows.grid import Rectangle

PIXELS = drifting_pixels(5, 40, 40)
FOREIGN = b"the only copy of a thesis"


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing in ``folder`` is changed, added or removed."""

    def look() -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = status.st_mode, status.st_ino, status.st_nlink, content
        return found

    before = look()
    yield
    assert look() == before


# Folders


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file["m"] = PIXELS
    return path


def foreign_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_bytes(FOREIGN)


def foreign_plan(folder: Path) -> None:
    folder.mkdir()
    (folder / "plan.json").write_bytes(FOREIGN)


def marked_folder(folder: Path) -> None:
    OwnFolder(folder, "parts", ["plan.json"]).take()
    (folder / "thesis.txt").write_bytes(FOREIGN)


def folder_below(folder: Path) -> None:
    OwnFolder(folder, "parts", ["plan.json"]).take()
    (folder / "below").mkdir()
    (folder / "below" / "plan.json").write_bytes(FOREIGN)


def linked_folder(folder: Path) -> None:
    OwnFolder(folder.with_name("elsewhere"), "parts", ["plan.json"]).take()
    (folder.with_name("elsewhere") / "plan.json").write_bytes(FOREIGN)
    folder.symlink_to("elsewhere")


def linked_to_nothing(folder: Path) -> None:
    folder.symlink_to("nowhere")


def a_file(folder: Path) -> None:
    folder.write_bytes(FOREIGN)


FOLDERS = [foreign_folder, foreign_plan, marked_folder, folder_below, linked_folder, linked_to_nothing, a_file]


@pytest.mark.parametrize("make", FOLDERS)
def test_a_folder_that_is_not_ours_stays_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "folder")
    own = OwnFolder(tmp_path / "folder", "parts", ["plan.json"])
    with untouched(tmp_path):
        for use in (own.check, own.take):
            with pytest.raises(InputError, match="choose another output"):
                use()


@pytest.mark.parametrize("make", FOLDERS)
def test_what_is_not_ours_is_not_deleted(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "folder")
    with untouched(tmp_path):
        OwnFolder(tmp_path / "folder", "parts", ["thesis.doc"]).remove()


@given(st.sets(st.sampled_from(["a.txt", "b.txt", "below/c.txt", "below/d.bin", "z\n.txt", ".hrtemvae-x", ".nfs01"])))
def test_only_named_files_are_deleted(names: set[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        own = OwnFolder(Path(place, "folder"), "parts", [r"[ab]\.txt", r"below/c\.txt"])
        own.take()
        for name in names:
            path = own.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        with replacing(own.path / "a.txt"):
            pass
        own.remove()
        left = {str(p.relative_to(own.path)) for p in own.path.rglob("*") if p.is_file()}
        kept = names - {"a.txt", "b.txt", "below/c.txt", ".nfs01"}
        assert left == (kept | {".hrtemvae-parts"} if kept else set())
        assert own.path.exists() == bool(kept)


def test_an_analysis_refuses_foreign_folders(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path
) -> None:
    for number, make in enumerate((foreign_folder, linked_folder)):
        make(tmp_path / f"{number}.h5.parts")
        with untouched(tmp_path):
            outcome = hrtemvae("analyze", movie, "--model", tiny_model_path, "-o", f"{number}.h5", "--restart")
        assert_refused(outcome, f"{number}.h5.parts", "choose another output")
        assert "--restart" not in outcome.text


@pytest.mark.parametrize("command", ["segments", "train", "session"])
def test_other_commands_refuse_foreign_folders(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path, command: str
) -> None:
    suffix = {"segments": ".parts", "train": ".training", "session": ""}[command]
    foreign_folder(tmp_path / f"out{suffix}")
    (tmp_path / "train.yaml").write_text(
        "data: {segments: [s.h5]}\n"
        "network: {window: 16, channels: [4], hidden: 8, latents: 3,\n"
        "  decoder: {base: 8, base_channels: 4, channels: [4]}}\n"
    )
    done = hrtemvae("segments", "--simulated", 60, "--window", 16, "-o", "s.h5")
    assert done.code == 0, done.text
    words: dict[str, list[object]] = {
        "segments": ["segments", tmp_path, "-o", "out", "--window", 16],
        "train": ["train", "train.yaml", "-o", "out"],
        "session": ["session", "run", tmp_path, "-o", "out", "--model", tiny_model_path],
    }
    with untouched(tmp_path):
        assert_refused(hrtemvae(*words[command]), f"out{suffix}", "choose another")


def test_refused_segments_leave_nothing(hrtemvae: Program, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "noise.h5", "w") as file:
        file["m"] = np.random.default_rng(0).integers(0, 100, (3, 80, 80), np.uint16)
    with untouched(tmp_path):
        assert_refused(hrtemvae("segments", tmp_path / "in", "-o", "s.h5"), "no segment with lattice fringes")


def test_a_report_does_not_delete_its_own_result(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path
) -> None:
    done = hrtemvae("analyze", movie, "--model", tiny_model_path, "-o", "maps.h5")
    assert done.code == 0, done.text
    done = hrtemvae("report", "maps.h5", "-o", "r")
    assert done.code == 0, done.text
    (tmp_path / "maps.h5").rename(tmp_path / "r" / "mean.tif")
    with untouched(tmp_path):
        assert_refused(hrtemvae("report", "r/mean.tif", "-o", "r"), "lies in the folder of its report")


# Outputs against inputs


def virtual(movie: Path) -> tuple[Path, Path]:
    layout = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    layout[:] = h5py.VirtualSource(movie.name, "m", PIXELS.shape)
    with h5py.File(movie.with_name("virtual.h5"), "w") as file:
        file.create_virtual_dataset("m", layout)
    return movie.with_name("virtual.h5"), movie


def raw(movie: Path) -> tuple[Path, Path]:
    movie.with_name("movie.raw").write_bytes(PIXELS.tobytes())
    with h5py.File(movie, "w") as file:
        file.create_dataset("m", PIXELS.shape, PIXELS.dtype, external=[("movie.raw", 0, PIXELS.nbytes)])
    return movie, movie.with_name("movie.raw")


def hard_link(movie: Path) -> tuple[Path, Path]:
    movie.with_name("other.h5").hardlink_to(movie)
    return movie, movie.with_name("other.h5")


def soft_link(movie: Path) -> tuple[Path, Path]:
    movie.with_name("other.h5").symlink_to(movie.name)
    return movie.with_name("other.h5"), movie


def linked_output(movie: Path) -> tuple[Path, Path]:
    return soft_link(movie)[::-1]


def linked_dataset(movie: Path) -> tuple[Path, Path]:
    with h5py.File(movie.with_name("linked.h5"), "w") as file:
        file["m"] = h5py.ExternalLink(movie.name, "m")
    return movie.with_name("linked.h5"), movie


@pytest.mark.parametrize("make", [virtual, raw, hard_link, soft_link, linked_output, linked_dataset])
def test_no_file_of_the_movie_is_replaced(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path, make: Callable[[Path], tuple[Path, Path]]
) -> None:
    given, output = make(movie)
    with untouched(tmp_path):
        outcome = hrtemvae("analyze", given, "--model", tiny_model_path, "-o", output, "--restart")
        assert_refused(outcome, str(output), "is itself one of the inputs")


def test_neither_model_nor_configuration_is_replaced(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path
) -> None:
    model = Path(shutil.copy(tiny_model_path, tmp_path / "model.html"))
    (tmp_path / "config.h5").write_text(f"encoding: {{model: {model}}}\n")
    for output in ("model.h5", "config.h5"):
        with untouched(tmp_path):
            outcome = hrtemvae("analyze", movie, "--config", "config.h5", "-o", output, "--restart")
            assert_refused(outcome, "is itself one of the inputs")


def test_foreign_files_are_not_replaced(hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path) -> None:
    for name in ("notes.html", "session.json", "other.h5", "picture.png", "weights.safetensors", "s.html"):
        (tmp_path / name).write_bytes(FOREIGN)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["m"] = PIXELS
    for words in (
        ["analyze", movie, "--model", tiny_model_path, "-o", "notes.h5", "--restart"],
        ["analyze", movie, "--model", tiny_model_path, "-o", "data.h5", "--restart"],
        ["model", "evaluate", tiny_model_path, "-o", "session.html"],
        ["model", "traverse", tiny_model_path, "-o", "picture.png"],
        ["simulate", "-o", "data.h5", "--frames", 3],
        ["segments", movie, "-o", "s.h5"],
        ["segments", "--simulated", 20, "-o", "other.h5"],
    ):
        with untouched(tmp_path):
            assert_refused(hrtemvae(*words), "may only replace a file of its own kind")


def test_each_kind_of_file_is_known_by_its_own_mark(tmp_path: Path, tiny_model_path: Path, hrtemvae: Program) -> None:
    done = hrtemvae("simulate", "-o", "movie.h5", "--frames", 3, "--size", 192, 192)
    assert done.code == 0, done.text
    done = hrtemvae("analyze", "movie.h5", "--model", tiny_model_path, "--step", 64)
    assert done.code == 0, done.text
    kinds = {
        "movie.h5": is_movie,
        "movie.maps.h5": is_result,
        "movie.maps.html": is_page,
        "numbers.json": is_numbers,
        "model.safetensors": is_model,
    }
    shutil.copy(tiny_model_path, tmp_path / "model.safetensors")
    (tmp_path / "numbers.json").write_text(json.dumps({"program": "hrtemvae", "a": 1}, indent=1))
    for name in kinds:
        assert [kind for kind in (*kinds.values(), is_picture) if kind(tmp_path / name)] == [kinds[name]]


def test_invalid_outputs(tmp_path: Path, movie: Path) -> None:
    (tmp_path / "nowhere.h5").symlink_to("gone.h5")
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    for name, words in (
        ("nowhere.h5", "a link to nothing"),
        ("folder.h5", "is a folder"),
        ("no/such/folder.h5", "there is no such folder"),
        ("n" * 253 + ".h5", "File name too long"),
        ("null\0.h5", "can't be written"),
        ("pipe.h5", "is not a regular file"),
        (os.fsdecode(b"caf\xe9.h5"), "not UTF-8"),
    ):
        with pytest.raises(InputError, match=words):
            check_outputs([Output(tmp_path / name, "the result", is_result)], [movie])
    same = [Output(tmp_path / "a.html", "the result", is_result), Output(tmp_path / "a.html", "its page", is_page)]
    with pytest.raises(InputError, match="choose another ending"):
        check_outputs(same)


@pytest.mark.parametrize("output", [".", "", "/"])
def test_an_output_without_a_name(
    hrtemvae: Program, tmp_path: Path, movie: Path, tiny_model_path: Path, output: str
) -> None:
    for words in (
        ["analyze", movie, "--model", tiny_model_path, "-o", output],
        ["model", "evaluate", tiny_model_path, "-o", output],
        ["segments", movie, "-o", output],
    ):
        with untouched(tmp_path):
            assert_refused(hrtemvae(*words), "is a folder")


# Temporary files


def test_a_file_is_on_the_disk_before_anything_it_replaces_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a loss of power: the file, its name, the names of its folder, then what it replaces."""
    calls: list[str] = []
    opened: dict[int, str] = {}

    def record(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            calls.append(f"{name} {describe(*arguments)}")
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    def path_of(handle: int) -> str:
        return "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"

    record("fsync", path_of)
    record("replace", lambda _, target: Path(target).name)
    record("unlink", lambda path, **_: Path(path).name if "hrtemvae-" not in str(path) else "temporary")
    parts = Parts(tmp_path / "o.h5", {}, {}, False)
    OwnFolder(parts.folder, "parts").take()
    tile = Rectangle(0, 1, 0, 1)
    parts.save(
        tile,
        TileMaps(
            np.zeros((4, 2, 1, 1), np.float32),
            np.ones((1, 1), np.int32),
            np.zeros(0, np.int64),
            np.ones((1, 1), np.float32),
            np.zeros(9, np.float32),
            np.zeros((1, 1, 2, 3), np.float16),
            np.zeros((2, 1, 1), np.int32),
        ),
    )
    with replacing(tmp_path / "o.h5", parts.folder) as aside:
        aside.write_bytes(b"maps")
    parts.claimed.discard()
    part = next(call.split()[1] for call in calls if call.endswith(".safetensors"))
    expected = ["fsync file", f"replace {part}", "fsync folder", "fsync file", "replace o.h5", "fsync folder"]
    assert [call for call in calls if call != "unlink temporary"] == [*expected, f"unlink {part}"]
    assert not opened


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_allows(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as aside:
            aside.write_text("content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / ".bashrc"
    victim.write_bytes(FOREIGN)
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".hrtemvae-guessed").symlink_to(victim)
    with pytest.raises(OSError, match="exists"), replacing(tmp_path / "result"):
        pass
    assert victim.read_bytes() == FOREIGN
    with pytest.raises(OSError, match="symbolic"):
        append_to_log(tmp_path / ".hrtemvae-guessed")


def test_a_link_that_takes_the_files_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / ".bashrc"
    victim.write_bytes(FOREIGN)

    def write() -> None:
        with replacing(tmp_path / "result") as aside:
            (temporary,) = tmp_path.glob(".hrtemvae-*")
            temporary.unlink()
            temporary.symlink_to(victim)
            aside.write_text("new")

    with pytest.raises(OSError, match="replaced"):
        write()
    assert victim.read_bytes() == FOREIGN
    assert [p.name for p in tmp_path.iterdir()] == [".bashrc"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("old")

    def write() -> None:
        with replacing(tmp_path / "result") as aside:
            aside.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert (tmp_path / "result").read_text() == "old"

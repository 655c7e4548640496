"""Sessions: which movies, in what state, by which jobs; and a session on this machine."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import BIN, Program
from conftest import assert_refused, assert_same_maps
from hostile import refusal
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.facility.session import (
    State,
    array_chunks,
    begin_session,
    open_session,
    queued_of,
)
from hrtemvae_hpc.facility.session_status import describe_session


@pytest.fixture
def night(tmp_path: Path, movie_path: Path) -> Path:
    """Two movies, one in a subfolder with an odd name, one that is cut off, and files that are not movies."""
    folder = tmp_path / "night"
    (folder / "late").mkdir(parents=True)
    shutil.copy(movie_path, folder / "a.h5")
    shutil.copy(movie_path, folder / "late" / "ö 'b' \"$x\"\n%&.h5")
    (folder / "cut.h5").write_bytes(movie_path.read_bytes()[:2000])
    for name in (".hidden.h5", "notes.txt", "a.maps.h5"):
        (folder / name).write_text("")
    return folder


@pytest.fixture
def options(tiny_model_path: Path) -> list[str]:
    return ["--model", str(tiny_model_path)]


@given(st.sets(st.integers(0, 3000)), st.integers(1, 1001))
def test_arrays_hold_each_movie_once_and_stay_below_slurms_bound(indices: set[int], size: int) -> None:
    found = []
    for offset, numbers in array_chunks(sorted(indices), size):
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            span = range(int(first), int(last or first) + 1)
            assert span[-1] < size
            found += [offset + n for n in span]
    assert found == sorted(indices)


MANIFESTS = {
    "no movies": '{"movies_folder": "/m", "options": []}',
    "null": "null",
    "a list": "[]",
    "movies of a text": '{"movies_folder": "/m", "options": [], "movies": "abc"}',
    "movies of numbers": '{"movies_folder": "/m", "options": [], "movies": [1]}',
    "a movie elsewhere": '{"movies_folder": "/m", "options": [], "movies": ["/etc/passwd"]}',
    "a result elsewhere": '{"movies_folder": "/m", "options": [], "movies": ["a/../../b.h5"]}',
    "a name that ends": '{"movies_folder": "/m", "options": [], "movies": ["a\\u0000.h5"]}',
    "100,000 levels": "[" * 100_000,
    "cut off": '{"movies_folder": "/m"',
    "other bytes": "\x00\x01",
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_an_invalid_manifest_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "session.json").write_text(MANIFESTS[what])
    assert "session.json: is damaged" in refusal(lambda: open_session(tmp_path))


def test_a_manifest_that_is_not_a_small_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    os.mkfifo(path)
    assert "there is no session" in refusal(lambda: open_session(tmp_path))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    assert "there is no session" in refusal(lambda: open_session(tmp_path))


RECORDS = [
    "null",
    "[]",
    "{}",
    '{"bytes": "a", "modified": 1.0}',
    '{"bytes": 1, "modified": 1.0, "attempts": [{}]}',
    "[" * 99_999,
]


@pytest.mark.parametrize("text", RECORDS)
def test_an_invalid_record_counts_as_no_attempt(night: Path, tmp_path: Path, text: str) -> None:
    session = begin_session(night, tmp_path / "out", [])
    (session.folder / "records" / "0.json").write_text(text)
    assert session.movie(0).state is State.WAITING
    assert session.begin(0, 1) is not None
    assert len(session.movie(0).attempts) == 1


def test_the_manifest_is_frozen_and_only_grows(night: Path, tmp_path: Path, movie_path: Path) -> None:
    first = begin_session(night, tmp_path / "out", [])
    assert first.names == ("a.h5", "cut.h5", "late/ö 'b' \"$x\"\n%&.h5")
    shutil.copy(movie_path, night / "a new one.emd")
    again = begin_session(night, tmp_path / "out", [])
    assert again.names == (*first.names, "a new one.emd")
    assert open_session(tmp_path / "out") == again
    with pytest.raises(InputError, match="use those"):
        begin_session(night, tmp_path / "out", ["--step", "4"])


def test_results_inside_the_folder_of_movies_are_not_movies(night: Path) -> None:
    begin_session(night, night / "out", [])
    (night / "out" / "b.h5").write_text("")
    assert len(begin_session(night, night / "out", []).names) == 3


def test_the_queue_is_read(night: Path, tmp_path: Path) -> None:
    session = begin_session(night, tmp_path / "out", [])
    queue = f"{session.id}+0 2;{session.id}+1000 7;other+0 1;{session.id}+0 N/A;"
    assert queued_of(session, queue) == {2, 1007}
    assert session.missing(frozenset({2})) == [0, 1]


def test_states(night: Path, tmp_path: Path) -> None:
    session = begin_session(night, tmp_path / "out", [])
    assert [m.state for m in session.movies] == [State.WAITING] * 3
    movie = session.begin(0, ranks=4)
    assert movie is not None
    movie.log.write_text("tiles 3\nhrtemvae: rank 1 on n2 was killed.\nsomething else\n")
    assert session.end(0, 4, again=True).state is State.WAITING
    assert "rank 1 on n2 was killed." in describe_session(session)
    session.begin(0, ranks=4)
    failed = session.end(0, 4, again=False)
    assert (failed.state, len(failed.attempts)) == (State.FAILED, 2)
    assert 0 in session.missing(), "after a lost rank, another attempt may succeed"
    session.begin(1, ranks=1)
    assert session.end(1, 2, again=False).reason.startswith("ended with exit code 2")
    assert 1 not in session.missing(), "refused as it is"
    os.utime(night / "cut.h5", (1, 1))
    assert 1 in session.missing(), "another file now"
    session.movie(0).result.write_text("")
    assert session.movie(0).state is State.DONE
    assert session.begin(0, ranks=1) is None
    assert "changed" not in describe_session(session)
    with (night / "a.h5").open("ab") as file:
        file.write(b"more")
    assert session.movie(0).state is State.DONE
    assert "changed since it was analysed" in describe_session(session)
    (night / "a.h5").unlink()
    assert "changed" not in describe_session(session), "archived"


def test_names_stay_on_one_line() -> None:
    assert printable("ö 'b'\n\x1b[31m") == r"ö 'b'\n\x1b[31m"


def test_a_session_on_this_machine(hrtemvae: Program, night: Path, options: list[str], tmp_path: Path) -> None:
    command = ["session", "run", "night", "--ranks", 2, *options]
    done = hrtemvae(*command)
    assert done.code == 2, done.text
    assert "2 done, 1 failed" in done.text
    assert "cut.h5: is truncated" in done.text
    assert hrtemvae("analyze", "night/a.h5", "-o", "alone.h5", *options).code == 0
    for result in ("night.maps/a.h5.maps.h5", Path("night.maps/late/ö 'b' \"$x\"\n%&.h5.maps.h5")):
        assert_same_maps(tmp_path / result, tmp_path / "alone.h5")
    page = (tmp_path / "night.maps" / "session.html").read_text()
    assert page.count('<div class="movie"') == 2
    assert "is truncated" in page
    before = (tmp_path / "night.maps/a.h5.maps.h5").stat().st_mtime_ns
    assert hrtemvae(*command).code == 2
    assert (tmp_path / "night.maps/a.h5.maps.h5").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "night.maps/records/1.json").read_text())["attempts"][0]["ranks"] == 2
    assert "2 done" in hrtemvae("session", "status", "night").text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nowhere"), "no such folder"),
        (("run", "empty"), "holds no movies"),
        (("run", "night", "--step", "0"), "--step"),
        (("run", "night", "--config", "none.yaml"), "none.yaml"),
        (("status", "nowhere"), "no session"),
        (("report",), "no session"),
        (("submit", "night"), "sbatch"),
    ],
)
def test_bad_input(hrtemvae: Program, words: tuple[str, ...], said: str, night: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    without_slurm = {"PATH": str(BIN)}
    assert_refused(hrtemvae("session", *words, variables=without_slurm if words[0] == "submit" else None), said)
    assert not (tmp_path / "night.maps").exists()

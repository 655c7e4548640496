"""Two runs can't work on one result, and a run that is lost doesn't block it."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Program, Running
from conftest import assert_refused

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.ranks import claim
from hrtemvae_hpc.ranks.claim import Claim, run_at_work, this_run
from hrtemvae_hpc.ranks.process import start_ticks


def put(folder: Path, **changed: Any) -> None:
    (folder / "run.json").write_text(json.dumps(asdict(replace(this_run(), **changed))))


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / "run.json", (then, then))


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_held_by_us(folder: Path) -> None:
    run = run_at_work(folder)
    assert run is not None
    assert run.is_same(this_run())
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_claim_is_seen_and_released(tmp_path: Path) -> None:
    with Claim(tmp_path) as own:
        own.take()
        run = run_at_work(tmp_path)
        assert run is not None
        assert (run.host, run.pid, run.share) == (socket.gethostname(), os.getpid(), 0.0)
    assert run_at_work(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        Claim(tmp_path / "gone").take()


def test_a_process_that_is_gone_does_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    put(tmp_path, pid=gone.pid)
    assert run_at_work(tmp_path) is None


def test_an_unreaped_process_does_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert gone.stdin is not None
    ticks = start_ticks(gone.pid)
    gone.stdin.close()
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    put(tmp_path, pid=gone.pid, ticks=ticks)
    assert run_at_work(tmp_path) is None
    gone.wait()


def test_a_later_process_with_its_number_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, ticks=this_run().ticks - 1)
    assert run_at_work(tmp_path) is None


def test_a_process_is_identified_by_the_kernel_and_not_by_a_clock(tmp_path: Path) -> None:
    with Claim(tmp_path) as own:
        own.take()
        stored = json.loads((tmp_path / "run.json").read_text())
        for seconds in (-3600, 3600):
            age(tmp_path, seconds)
            assert run_at_work(tmp_path) is not None
            with pytest.raises(InputError, match="another run is at work"):
                Claim(tmp_path).take()
    assert stored["ticks"] == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert stored["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert set(stored) == {"host", "boot", "processes", "pid", "ticks", "job", "share"}


@pytest.mark.parametrize("elsewhere", [{"boot": "another"}, {"processes": "pid:[1]"}])
def test_on_another_host_a_run_counts_while_it_gives_signs_of_life(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    put(tmp_path, **elsewhere)
    assert run_at_work(tmp_path) is not None
    for seconds in (300, -300):
        age(tmp_path, seconds)
        assert run_at_work(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_an_earlier_start_of_the_same_job_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, boot="another", job="17")
    assert run_at_work(tmp_path) is not None
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert run_at_work(tmp_path) is None


@pytest.mark.parametrize("seconds", [300, -3600])
def test_a_lost_claim_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(claim, "_WATCHED_S", 0.5)
    put(tmp_path, boot="another")
    age(tmp_path, seconds)
    with Claim(tmp_path) as own:
        own.take()
        assert_held_by_us(tmp_path)


@pytest.mark.parametrize("seconds", [300, -3600])
def test_a_run_with_a_wrong_clock_still_counts(tmp_path: Path, seconds: float) -> None:
    put(tmp_path, boot="another")
    age(tmp_path, seconds)
    sign = threading.Timer(0.5, age, (tmp_path, seconds - 5))
    sign.start()
    with pytest.raises(InputError, match="another run is at work"):
        Claim(tmp_path).take()
    sign.join()


def test_signs_of_life_are_given_whatever_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_EVERY_S", 0.05)
    path = tmp_path / "run.json"
    with Claim(tmp_path) as own:
        own.take()
        age(tmp_path, 300)
        wait_until(lambda: time.time() - path.stat().st_mtime < 100)
        own.heartbeat(0.25)
        wait_until(lambda: json.loads(path.read_text())["share"] == 0.25)
    time.sleep(0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_EVERY_S", 0.02)
    with Claim(tmp_path) as own:
        own.take()
        (tmp_path / "run.json").unlink()
        own.heartbeat(0.5)
        time.sleep(0.2)
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_taken_for_lost_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_EVERY_S", 0.02)
    with Claim(tmp_path) as own:
        own.take()
        put(tmp_path, boot="another")
        theirs = (tmp_path / "run.json").read_text()
        with pytest.raises(RankFailed, match="took over"):
            wait_until(lambda: own.heartbeat(0.5))
    assert (tmp_path / "run.json").read_text() == theirs


DAMAGED = {
    "nothing": "",
    "cut off": "{",
    "a list": "[]",
    "a field less": {"pid": None},
    "a field more": {"more": 1},
    "a number as text": {"pid": "1"},
    "a pid of all": {"pid": -1},
    "a share that is none": {"share": float("nan")},
    "long": {"host": "x" * 5000},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_claim_does_not_block(tmp_path: Path, damage: str | dict[str, object]) -> None:
    if isinstance(damage, dict):
        fields = {name: v for name, v in (asdict(this_run()) | damage).items() if v is not None}
        damage = json.dumps(fields)
    (tmp_path / "run.json").write_text(damage)
    assert run_at_work(tmp_path) is None
    with Claim(tmp_path) as own:
        own.take()
        assert_held_by_us(tmp_path)
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            Claim(tmp_path).check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(20)
def test_a_claim_that_is_not_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert run_at_work(tmp_path) is None
    with Claim(tmp_path) as own:
        own.take()
        assert_held_by_us(tmp_path)


def test_a_link_is_not_a_claim_and_its_target_stays(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    put(tmp_path)
    (folder / "run.json").symlink_to(tmp_path / "run.json")
    theirs = (tmp_path / "run.json").read_text()
    assert run_at_work(folder) is None
    with Claim(folder) as own:
        own.take()
        assert_held_by_us(folder)
    assert (tmp_path / "run.json").read_text() == theirs


def test_the_content_of_a_claim_can_not_act_on_a_terminal(tmp_path: Path) -> None:
    put(tmp_path, boot="another", host="\x1b[2Jx\nhrtemvae: done", job="\x9b1")
    text = str(run_at_work(tmp_path))
    assert text.isprintable()
    assert "x1b[2Jx" in text


@pytest.mark.parametrize("ahead", [-60, 0, 3600])
@pytest.mark.timeout(20)
def test_a_run_killed_in_its_turn_does_not_block(tmp_path: Path, ahead: float) -> None:
    turn = tmp_path / ".run.json.turn"
    turn.touch()
    os.utime(turn, (time.time() + ahead,) * 2)
    began = time.monotonic()
    with Claim(tmp_path) as own:
        own.take()
        assert 2 < time.monotonic() - began < 7
        assert_held_by_us(tmp_path)


@pytest.mark.timeout(20)
def test_a_turn_that_others_keep_taking_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_TURN_LOST_AFTER_S", (0.3, 0.4))
    monkeypatch.setattr(claim, "_NO_TURN_AFTER_S", 1.5)
    turn, done = tmp_path / ".run.json.turn", threading.Event()

    def others() -> None:
        while not done.wait(0.1):
            os.utime(turn)

    turn.touch()
    thread = threading.Thread(target=others)
    thread.start()
    try:
        with pytest.raises(InputError, match="try again"):
            Claim(tmp_path).take()
    finally:
        done.set()
        thread.join()
    assert turn.exists()
    assert run_at_work(tmp_path) is None


def test_of_many_at_once_one_wins(run_in: Callable[[Path], Program], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    put(folder, ticks=0)  # a lost claim that all want to take over
    program = run_in(tmp_path)
    logs = [tmp_path / f"log{i}" for i in range(6)]
    racers = [program.start(folder, tmp_path / "go", script="race_for_claim.py", log=log) for log in logs]

    def ready(racer: Running) -> bool:
        return "ready" in racer.text

    for racer in racers:
        racer.wait_until(partial(ready, racer))
    (tmp_path / "go").touch()
    codes = [racer.wait(30) for racer in racers]
    assert codes.count(0) == 1
    for code, racer in zip(codes, racers, strict=True):
        assert ("won" if code == 0 else "another run is at work") in racer.text


def test_the_winner_is_named(tmp_path: Path) -> None:
    with Claim(tmp_path) as first:
        first.take()
        with pytest.raises(InputError, match=f"process {os.getpid()} on .*0% done"):
            Claim(tmp_path).check()


def test_two_analyses_of_one_movie(hrtemvae: Program, movie_path: Path, tiny_model_path: Path) -> None:
    words = ("analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5")
    first = hrtemvae.start(*words, script="paced.py", variables={"HRTEMVAE_TILES": "1x1", "HRTEMVAE_PACE": "0.3"})
    first.wait_until(lambda: (hrtemvae.folder / "maps.h5.parts/run.json").exists())
    assert_refused(hrtemvae(*words), "another run is at work", "-o")
    assert first.wait() == 0, first.text

"""Two runs can't work on one result, and a run that is lost doesn't block it."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import Outcome, assert_refused, command_line, environment

from hrtemvae_hpc.distributed.claim import Claim, run_at_work, this_run
from hrtemvae_hpc.errors import InputError


def put(folder: Path, **changed: object) -> None:
    (folder / "run.json").write_text(json.dumps(asdict(replace(this_run(), **changed))))  # type: ignore[arg-type]


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / "run.json", (then, then))


def test_it_is_seen_and_given_free(tmp_path: Path) -> None:
    with Claim(tmp_path) as claim:
        claim.take()
        run = run_at_work(tmp_path)
        assert run is not None
        assert (run.host, run.pid, run.share) == (socket.gethostname(), os.getpid(), 0.0)
    assert run_at_work(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        Claim(tmp_path / "gone").take()


def test_a_process_that_is_gone_does_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    put(tmp_path, pid=gone.pid)
    assert run_at_work(tmp_path) is None


def test_a_later_process_with_its_number_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, started=this_run().started - 1)
    assert run_at_work(tmp_path) is None


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"processes": "pid:[1]"}])
def test_elsewhere_it_counts_while_it_gives_signs_of_life(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    put(tmp_path, **elsewhere)
    assert run_at_work(tmp_path) is not None
    age(tmp_path, 300)
    assert run_at_work(tmp_path) is None


def test_an_earlier_start_of_the_same_job_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, host="another", job="17")
    assert run_at_work(tmp_path) is not None
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert run_at_work(tmp_path) is None


def test_a_lost_claim_is_taken_over(tmp_path: Path) -> None:
    put(tmp_path, host="another")
    age(tmp_path, 300)
    Claim(tmp_path).take()
    run = run_at_work(tmp_path)
    assert run is not None
    assert run.pid == os.getpid()
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_damaged_claim_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    Claim(tmp_path).take()


def test_a_run_killed_in_its_turn_does_not_block(tmp_path: Path) -> None:
    turn = tmp_path / ".run.json.turn"
    turn.touch()
    os.utime(turn, (time.time() - 60,) * 2)
    Claim(tmp_path).take()
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from hrtemvae_hpc.distributed.claim import Claim\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "Claim(Path(sys.argv[1])).take(); print('won', flush=True); time.sleep(3)"
    )
    folder = tmp_path / "parts"
    folder.mkdir()
    put(folder, host="another")
    age(folder, 300)  # a lost claim, which all want to take over
    command = [sys.executable, "-c", code, folder, tmp_path / "go"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    time.sleep(3)
    (tmp_path / "go").touch()
    told = [racer.communicate() for racer in racers]
    assert sum(out == "won\n" for out, _ in told) == 1
    assert all("another run is at work" in err for out, err in told if not out)


def test_the_winner_is_named(tmp_path: Path) -> None:
    with Claim(tmp_path) as first:
        first.take()
        with pytest.raises(InputError, match=f"process {os.getpid()} on .*0% done"):
            Claim(tmp_path).check()


def test_two_analyses_of_one_movie(tmp_path: Path) -> None:
    subprocess.run(command_line(["simulate", "-o", "movie.h5", "--frames", 30]), cwd=tmp_path, env=environment())
    command = command_line(["analyze", "movie.h5", "--step", 8])
    first = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("movie.maps.h5.parts/run.json")):
        time.sleep(0.05)
    second = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert_refused(Outcome(second.returncode, second.stdout + second.stderr), "another run is at work", "-o")
    assert first.wait() == 0

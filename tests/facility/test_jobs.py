"""Jobs on two nodes in the image: the same maps to the bit, whatever happens in between."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import psutil
import pytest
from commands import Outcome
from conftest import assert_refused, assert_same_maps
from recorder import recording

from .cluster import run
from .conftest import ANALYZE, ROOT, STEP, Queue


def test_the_same_maps_as_outside_the_image(queue: Queue, movie: Path, expected: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP)
    queue.until_state(job, "COMPLETED")
    result = queue.folder / "a movie.maps.h5"
    assert_same_maps(result, expected)
    with h5py.File(result) as file:
        assert len(file["entry/process/image_sha256"].asstr()[()]) == 64
    log = queue.log(job)
    for words in ("2 ranks with 1 CPUs", "n[1-2]", "a movie.h5", "result: a movie.maps.h5", "done: "):
        assert words in log
    assert "Sorry!" not in log
    assert "WARNING" not in log
    full = (queue.folder / f"hrtemvae-{job}.full.log").read_text()
    assert f"JobId={job}" in full
    assert "0: result: a movie.maps.h5" in full


def test_a_recording_is_followed_by_a_job(queue: Queue, movie: Path, expected: Path) -> None:
    with h5py.File(movie) as file:
        frames = file["entry/data/data"][...]
    with recording(queue.folder / "live.h5", frames) as recorder:
        recorder.write(15)
        job = queue.submit("--nodes=2", ANALYZE, "live.h5", "--follow", "--every", "1", *STEP)
        queue.until(lambda: "frame 13: " in queue.log(job), 200, "a first drawing")
        run("scancel", "--signal=USR1", "--batch", job)
        queue.resume(job)
        assert "run the same command again" in queue.log(job)
        recorder.write(15)
        queue.until(lambda: "frame 28: " in queue.log(job), 200, "the last drawing")
        recorder.finish()
        queue.until_state(job, "COMPLETED")
    assert "resuming: " in queue.log(job)
    assert "the recording has ended; analysing all of it." in queue.log(job)
    assert_same_maps(queue.folder / "live.maps.h5", expected)


def test_several_movies_and_one_that_is_not_a_movie(queue: Queue, tmp_path: Path) -> None:
    for name in ("one.h5", "-two, three.h5"):
        run("hrtemvae", "simulate", "-o", tmp_path / name, "--frames", 4, "--size", 192, 192)
    (tmp_path / "broken.h5").write_text("no movie")
    job = queue.submit("--nodes=2", ANALYZE, "one.h5", "broken.h5", "./-two, three.h5", "--step", "32")
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "2:0"
    assert (tmp_path / "one.maps.h5").exists()
    assert (tmp_path / "-two, three.maps.h5").exists()
    log = queue.log(job)
    assert len(re.findall("^hrtemvae: .*broken.h5", log, re.MULTILINE)) == 1
    assert "Traceback" not in log
    assert "failed with exit code 2: broken.h5" in log


def asked_by_usr1(job: str, _: Queue) -> None:
    run("scancel", "--signal=USR1", "--batch", job)


def asked_by_term(job: str, _: Queue) -> None:
    run("scancel", "--signal=TERM", "--batch", job)


def a_rank_killed(_: str, __: Queue) -> None:
    processes = ranks("1")
    os.kill(next(p for p in processes if psutil.Process(p).ppid() in processes), 9)


def ranks(number: str) -> list[int]:
    """The processes of a rank: its guardian, and the rank itself, which is the guardian's child."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if b"hrtemvae\0analyze" in words and b"python" in words and f"PMIX_RANK={number}\0".encode() in variables:
            found.append(int(path.name))
    return found


@pytest.mark.parametrize("fault", [asked_by_usr1, asked_by_term], ids=lambda f: f.__name__)
def test_stopped_jobs_resume(fault: Callable[[str, Queue], None], queue: Queue, movie: Path, expected: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP)
    result = queue.folder / "a movie.maps.h5"
    queue.until_tiles(result)
    fault(job, queue)
    queue.resume(job)
    queue.until_state(job, "COMPLETED")
    assert_same_maps(result, expected)
    log = queue.log(job)
    assert "requeued, resumes" in log
    assert re.search(r"resuming: \d+ of \d+ tiles are done", log)
    assert not list(queue.folder.glob(".hrtemvae*"))


def test_a_killed_rank_costs_no_place_in_the_queue(queue: Queue, movie: Path, expected: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP)
    result = queue.folder / "a movie.maps.h5"
    queue.until_tiles(result)
    a_rank_killed(job, queue)
    assert queue.until_state(job, "COMPLETED")["Restarts"] == "0"
    assert_same_maps(result, expected)
    log = queue.log(job)
    assert re.search("hrtemvae: rank 1 on .* was killed by SIGKILL while w(orking|aiting)", log)
    assert re.search(r"starting again\n.* on n\[1-2\]: 2 ranks", log)
    assert re.search(r"resuming: \d+ of \d+ tiles are done", log)


def test_a_signal_before_the_job_is_ready(queue: Queue, tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text(f"touch '{tmp_path}/begun'; sleep 3\n")
    job = queue.submit(ANALYZE, "m.h5", HRTEMVAE_SITE=str(site))
    queue.until((tmp_path / "begun").exists, 60, "the script's start")
    asked_by_usr1(job, queue)
    queue.until_requeued(job)
    assert "asked to stop" in queue.log(job)


def test_a_time_limit_that_is_too_short(queue: Queue, movie: Path, expected: Path, tmp_path: Path) -> None:
    # Slurm looks at its limits every 30 seconds: the signal comes 15 to 45 seconds after the first start.
    site = tmp_path / "site.sh"
    site.write_text('[ -n "${SLURM_RESTART_COUNT:-}" ] || sleep 30\n')
    settings = {"HRTEMVAE_SITE": str(site)}
    job = queue.submit("--nodes=2", "--time=1", "--signal=B:USR1@45", ANALYZE, movie, *STEP, **settings)
    queue.until_requeued(job)
    run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    queue.resume(job)
    queue.until_state(job, "COMPLETED")
    assert "asked to stop" in queue.log(job)
    assert_same_maps(queue.folder / "a movie.maps.h5", expected)


def test_a_node_that_is_lost(queue: Queue, movie: Path, expected: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP)
    result = queue.folder / "a movie.maps.h5"
    queue.until_tiles(result)
    queue.cluster.stop_node("n2")
    facts = queue.until_state(job, "COMPLETED")
    queue.cluster.start_node("n2")
    assert facts["Restarts"] == "0"
    assert_same_maps(result, expected)
    assert re.search(r"starting again\n.* on n1: 1 ranks", queue.log(job))


def test_a_full_disk_is_not_tried_again(queue: Queue, movie: Path) -> None:
    disk = queue.folder / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk)
    try:
        job = queue.submit("--nodes=2", ANALYZE, movie, "-o", disk / "maps.h5", *STEP)
        facts = queue.until_state(job, "FAILED")
    finally:
        run("umount", "--lazy", disk)
    assert (facts["ExitCode"], facts["Restarts"]) == ("5:0", "0")
    log = queue.log(job)
    assert "No space left on device" in log
    assert log.count(" ranks with ") == 1


def test_a_cancelled_job_stays_cancelled(queue: Queue, movie: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP)
    queue.until_tiles(queue.folder / "a movie.maps.h5", 1)
    run("scancel", job)
    queue.until_state(job, "CANCELLED")
    queue.until_empty()
    assert queue.facts(job)["Restarts"] == "0"
    assert "cancelled" in queue.log(job)


def test_no_more_starts_than_allowed(queue: Queue, movie: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP, HRTEMVAE_REQUEUES="0")
    queue.until_tiles(queue.folder / "a movie.maps.h5", 1)
    asked_by_usr1(job, queue)
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "3:0"
    assert "HRTEMVAE_REQUEUES" in queue.log(job)


def test_the_wrong_launcher(queue: Queue, movie: Path) -> None:
    job = queue.submit("--nodes=2", ANALYZE, movie, *STEP, HRTEMVAE_SRUN="--mpi=none")
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "2:0"
    messages = [line for line in queue.log(job).splitlines() if line.startswith("hrtemvae: ")]
    assert len(messages) == 1
    assert "srun --mpi=pmix" in messages[0]
    assert not list(queue.folder.glob("*.maps.h5*"))


def test_a_result_that_takes_longer_than_srun_waits(queue: Queue, image: Path, movie: Path) -> None:
    script = ROOT / "tests" / "programs" / "slow_result.py"
    ranks = ["srun", "--nodes=2", "--ntasks=2", "--mpi=pmix", "--kill-on-bad-exit=0", "--wait=3"]
    inside = ["apptainer", "--quiet", "exec"]
    for folder in (ROOT, queue.folder, movie.parent):
        inside += ["--mount", f'type=bind,"src={folder}","dst={folder}"']
    words = ("analyze", movie, "-o", queue.folder / "maps.h5", "--step", 64)
    environment = {**queue.environment, "OMPI_MCA_btl": "^sm", "HRTEMVAE_PACE": "10"}
    run(*ranks, *inside, image, "python", script, *words, cwd=queue.folder, env=environment)
    assert (queue.folder / "maps.h5").exists()


def test_the_doctor_on_two_nodes(queue: Queue, image: Path) -> None:
    def doctor(launcher: str) -> Outcome:
        words = [
            "srun",
            "--nodes=2",
            "--ntasks=2",
            launcher,
            "apptainer",
            "--quiet",
            "exec",
            image,
            "hrtemvae",
            "doctor",
        ]
        done = subprocess.run(list(map(str, words)), cwd=queue.folder, capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stdout)

    well = doctor("--mpi=pmix")
    assert well.code == 0, well.text
    assert "ranks      ok       2 on" in well.text
    assert f"in the image {image}" in well.text
    ill = doctor("--mpi=none")
    assert ill.code == 2
    assert ill.text.count("verdict") == 1
    assert "ranks      WRONG" in ill.text


def test_the_hosts_mpi_bound_into_the_image(queue: Queue, tmp_path: Path) -> None:
    # MPICH's wheel is a host's MPI: a folder of libraries with the ABI of Cray's, and Slurm's PMI-2.
    run("python3", "-m", "venv", tmp_path / "host mpi")
    run(tmp_path / "host mpi/bin/pip", "install", "--quiet", "mpich==5.0.2")
    library = tmp_path / "host mpi/lib/libmpi.so.12"
    run("hrtemvae", "simulate", "-o", tmp_path / "m.h5", "--frames", 4, "--size", 192, 192)
    mode = {"HRTEMVAE_SRUN": "--mpi=pmi2", "HRTEMVAE_HOST_MPI": str(library)}
    job = queue.submit("--nodes=2", ANALYZE, "m.h5", "--step", "32", **mode)
    queue.until_state(job, "COMPLETED")
    run("hrtemvae", "analyze", tmp_path / "m.h5", "-o", tmp_path / "alone.h5", "--step", 32)
    assert_same_maps(tmp_path / "m.maps.h5", tmp_path / "alone.h5")
    assert "2 ranks" in queue.log(job)
    assert "error" not in queue.log(job).lower()
    # MPICH has no PMIx.
    mode |= {"HRTEMVAE_SRUN": "--mpi=pmix"}
    job = queue.submit("--nodes=2", ANALYZE, "m.h5", "--step", "32", "--restart", **mode)
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "5:0"
    assert "MPI could not start" in queue.log(job)
    assert "PMI" in (tmp_path / f"hrtemvae-{job}.full.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        ((), {}, ["name a movie"]),
        (("--step", "8"), {}, ["name a movie first"]),
        (("a.h5", "b.h5", "-o", "c.h5"), {}, ["-o", "2 movies"]),
        (("a.h5",), {"HRTEMVAE_IMAGE": "nowhere.sif"}, ["nowhere.sif", "hrtemvae image build"]),
        (("a.h5",), {"HRTEMVAE_SITE": "nowhere.sh"}, ["nowhere.sh", "HRTEMVAE_SITE"]),
        (("a.h5",), {"HRTEMVAE_GPUS": "three"}, ["HRTEMVAE_GPUS=three", "nvidia"]),
    ],
)
def test_what_the_script_refuses(
    arguments: tuple[str, ...], settings: dict[str, str], words: list[str], queue: Queue
) -> None:
    done = queue.script(ANALYZE, *arguments, **settings)
    assert_refused(Outcome(done.returncode, done.stdout + done.stderr), *words)


def test_a_movie_that_is_not_there(queue: Queue) -> None:
    job = queue.submit(ANALYZE, "none.h5")
    queue.until_state(job, "FAILED")
    assert queue.facts(job)["ExitCode"] == "2:0"
    assert len(re.findall("^hrtemvae: .*none.h5", queue.log(job), re.MULTILINE)) == 1


def test_what_is_submitted(queue: Queue, tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text('export SBATCH_TIMELIMIT=2:00:00\nHRTEMVAE_SBATCH="--nodes=2 --ntasks-per-node=2 --hold"\n')
    printed = queue.script(ANALYZE, "a movie.h5", "--step", "16", HRTEMVAE_SITE=str(site)).stdout
    facts = run("scontrol", "show", "job", printed.split()[-1]).stdout
    job = printed.split()[-1]
    for line in (
        "JobName=hrtemvae",
        "Requeue=1",
        "TimeLimit=02:00:00",
        "NumNodes=2",
        "NumTasks=4",
        "NtasksPerN:B:S:C=2:",
        f"Command={ANALYZE} a movie.h5 --step 16",
        f"WorkDir={tmp_path}",
        f"StdOut={tmp_path}/hrtemvae-{job}.log",
        "Partition=main",
        "Account=(null)",
    ):
        assert line in facts, facts

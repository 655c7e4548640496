"""Kills a small analysis on two ranks at random moments, repeatedly, and checks what is left.

    python benchmarks/kill_at_random.py [--times 100] [--seed 0]

Each time SIGKILL goes to a rank, to the guardian of a rank, or to all processes with the launcher, after a random share
of the time that an undisturbed run takes; then the same command is run again to its end. The maps must be those of the
undisturbed run to the bit, files beside the result must not be touched, and the program may leave nothing in the
node's memory or in the folder of temporary files. What Open MPI leaves there when its launcher is killed is ignored.
"""

import argparse
import contextlib
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import psutil

MAPS = ("time_correlated_variance", "variance", "spearman", "mean", "valid_frames")
NOTES = "not of this program"
EXPECTED = {"notes.txt", "maps.h5", "maps.html"}
LEAST_S = 0.05
PATIENCE_S = 60.0


def digest_of_maps(path: Path) -> str:
    """SHA-256 over all maps of a result."""
    digest = hashlib.sha256()
    with h5py.File(path, "r") as file:
        for name in MAPS:
            digest.update(np.ascontiguousarray(file[f"entry/{name}/data"][...]).data)
    return digest.hexdigest()


def state_of(folder: Path) -> dict[str, bytes]:
    """Each file below ``folder`` and its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(work: Path, temporary: Path, movie: Path) -> "subprocess.Popen[bytes]":
    """Start the analysis in its own session, so that all its processes can be killed at once."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "-n", "2", "hrtemvae", "analyze", str(movie), "-o", "maps.h5", "--step", "4"]
    return subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def kill(run: "subprocess.Popen[bytes]", choice: random.Random) -> str:
    """SIGKILL to one process of the program, or to all and the launcher; returns which."""
    launcher = psutil.Process(run.pid)
    family = launcher.children(recursive=True)
    ours = [process for process in family if _is_ours(process)]
    victims = [choice.choice(ours)] if ours and choice.random() < 0.7 else [*family, launcher]
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    run.communicate(timeout=PATIENCE_S)
    return "all" if len(victims) > 1 else "one"


def _is_ours(process: psutil.Process) -> bool:
    try:
        return "hrtemvae" in (Path(word).name for word in process.cmdline()[:2])  # python and its script
    except psutil.Error:
        return False


def left_over(names: Iterable[str], killed: str) -> list[str]:
    """``names``, without those of Open MPI's own files where its launcher was killed, which otherwise removes them."""
    of_mpi = ("ompi.", "sm_segment.", "prte", "pmix") if killed == "all" else ()
    return sorted(name for name in names if not name.startswith(of_mpi))


def disturb(work: Path, temporary: Path, movie: Path, seconds: float, choice: random.Random) -> str:
    """Start the analysis and kill it after ``seconds``; returns what was killed, "nothing" if it ended before that."""
    run = start(work, temporary, movie)
    try:
        run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return kill(run, choice)
    return "nothing"


def resume(work: Path, temporary: Path, movie: Path, undisturbed: str) -> list[str]:
    """Run the analysis to its end; returns what is wrong then."""
    run = start(work, temporary, movie)
    output = run.communicate()[1].decode()
    if run.returncode:
        return [f"exit code {run.returncode}: {output}"]
    wrong = [f"left or gone: {sorted(left)}"] if (left := set(state_of(work)) ^ EXPECTED) else []
    if digest_of_maps(work / "maps.h5") != undisturbed:
        wrong.append("the maps differ")
    if (work / "notes.txt").read_text() != NOTES:
        wrong.append("a foreign file was touched")
    return wrong


def main() -> None:
    """Run the trials and print a line for each that fails, and their number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    choice, killed, failures, undisturbed, takes = random.Random(options.seed), Counter[str](), 0, "", 0.0
    with tempfile.TemporaryDirectory() as place:
        movie = Path(place, "movie.h5")
        simulate = ["hrtemvae", "simulate", "-o", str(movie), "--frames", "12", "--size", "192", "224"]
        subprocess.run(simulate, check=True, stdout=sys.stderr)
        for trial in range(options.times + 1):
            work, temporary = Path(place, f"work{trial}"), Path(place, f"tmp{trial}")
            work.mkdir()
            temporary.mkdir()
            (work / "notes.txt").write_text(NOTES)
            in_memory = set(os.listdir("/dev/shm"))
            if trial == 0:
                began = time.monotonic()
                start(work, temporary, movie).communicate()
                takes, undisturbed = time.monotonic() - began, digest_of_maps(work / "maps.h5")
                continue
            victims = disturb(work, temporary, movie, choice.uniform(LEAST_S, takes), choice)
            killed[victims] += 1
            wrong = resume(work, temporary, movie, undisturbed)
            if left := left_over(set(os.listdir("/dev/shm")) - in_memory, victims):
                wrong.append(f"in memory: {left}")
            if left := left_over(state_of(temporary), victims):
                wrong.append(f"temporary: {left}")
            if wrong:
                failures += 1
                print(f"trial {trial}: {'; '.join(wrong)}", flush=True)
        print(
            f"{options.times} runs: {killed['one']} lost a rank or a guardian, {killed['all']} all processes, "
            f"{killed['nothing']} ended before; {failures} left something wrong"
        )
        sys.exit(failures > 0)


if __name__ == "__main__":
    main()

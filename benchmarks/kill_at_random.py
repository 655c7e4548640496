"""Kills a small analysis on two ranks at random moments, again and again, and looks at what is left.

    python benchmarks/kill_at_random.py [--times 100] [--seed 0]

Each time SIGKILL goes to a rank, to the guardian of a rank, or to all processes with the launcher, after a random share
of the time that an undisturbed run takes; then the same command is run again to its end. The maps must be those of the
undisturbed run to the bit, files beside the result must not be touched, and nothing of ours may be left in the node's
memory or in the folder of temporary files. What Open MPI leaves there once its launcher is killed is not counted.
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
    """Begin the analysis in a session of its own, so that all its processes can be killed at once."""
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
        return any("hrtemvae" in word for word in process.cmdline())
    except psutil.Error:
        return False


def of_ours(names: Iterable[str]) -> list[str]:
    """``names`` without those of Open MPI's own files."""
    return sorted(name for name in names if not name.startswith(("ompi.", "sm_segment.", "prte", "pmix")))


def main() -> None:
    """Run the trials and print a line for each that fails, and their number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        work, temporary, movie = Path(place, "work"), Path(place, "tmp"), Path(place, "movie.h5")
        temporary.mkdir()
        subprocess.run(
            ["hrtemvae", "simulate", "-o", movie, "--frames", "12", "--size", "192", "224"],
            check=True,
            stdout=sys.stderr,
        )
        shared_before = set(os.listdir("/dev/shm"))
        undisturbed, takes, failures, killed = "", 0.0, 0, Counter[str]()
        for trial in range(options.times + 1):
            work.mkdir()
            (work / "notes.txt").write_text("not of this program")
            began = time.monotonic()
            run = start(work, temporary, movie)
            if trial == 0:
                run.communicate()
                takes, undisturbed = time.monotonic() - began, digest_of_maps(work / "maps.h5")
                expected = {"notes.txt", "maps.h5", "maps.html"}
                assert set(state_of(work)) == expected, state_of(work).keys()
            else:
                try:
                    run.wait(moments.uniform(LEAST_S, takes))
                except subprocess.TimeoutExpired:
                    killed[kill(run, moments)] += 1
                run = start(work, temporary, movie)
                told = run.communicate()[1].decode()
                left = set(state_of(work)) ^ {"notes.txt", "maps.h5", "maps.html"}
                wrong = [f"exit code {run.returncode}: {told}"] if run.returncode else []
                wrong += [f"left or gone: {sorted(left)}"] if left else []
                if not run.returncode and digest_of_maps(work / "maps.h5") != undisturbed:
                    wrong.append("the maps differ")
                if (work / "notes.txt").read_text() != "not of this program":
                    wrong.append("a foreign file was touched")
                wrong += [f"in memory: {m}"] if (m := of_ours(set(os.listdir("/dev/shm")) - shared_before)) else []
                wrong += [f"temporary: {t}"] if (t := of_ours(state_of(temporary))) else []
                if wrong:
                    failures += 1
                    print(f"trial {trial}: {'; '.join(wrong)}", flush=True)
            subprocess.run(["rm", "-rf", work], check=True)
        print(
            f"{options.times} runs: {killed['one']} lost a rank or a guardian, {killed['all']} all processes, "
            f"the others ended before; {failures} left something wrong"
        )
        sys.exit(failures > 0)


if __name__ == "__main__":
    main()

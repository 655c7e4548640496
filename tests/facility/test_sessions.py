"""A night's session on the cluster, and the page for facilities followed word for word."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import assert_same_maps

from .cluster import run
from .conftest import ANALYZE, ROOT, SESSION, STEP, Queue

ODD = "ödd \"name\" 'of' $(touch x), 50%; [a]&b\tc\\.h5"
OPTIONS = ("--step", "16")


def make_movies(folder: Path) -> None:
    """Four movies, one of them in a folder below with an odd name, and one that is cut off."""
    (folder / "later").mkdir(parents=True)
    for seed in range(3):
        run("hrtemvae", "simulate", "-o", folder / f"m{seed}.h5", "--frames", 8, "--size", 192, 224, "--seed", seed)
    run("hrtemvae", "simulate", "-o", folder / "later" / ODD, "--frames", 8, "--size", 192, 224)
    (folder / "cut off.h5").write_bytes((folder / "m0.h5").read_bytes()[:20000])


def status(queue: Queue, image: Path, *words: str) -> str:
    command = ["apptainer", "--quiet", "run", image, "session", "status", *words]
    return run(*command, cwd=queue.folder).stdout


def test_a_night(queue: Queue, image: Path, tmp_path: Path) -> None:
    make_movies(tmp_path / "night 1")
    done = queue.script(SESSION, "night 1", *OPTIONS, HRTEMVAE_AT_ONCE="3")
    assert done.returncode == 0, done.stderr
    (array,) = re.findall(r"job array (\d+)", done.stdout)
    (summary,) = re.findall(r"summary (\d+)", done.stdout)
    assert "ArrayTaskThrottle=3" in run("scontrol", "show", "job", array).stdout
    assert f"afterany:{array}_*(unfulfilled)" in queue.facts(summary)["Dependency"]
    # Submitted again while it runs: nothing is started twice.
    again = queue.script(SESSION, "night 1", *OPTIONS)
    assert "nothing to submit" in again.stdout, again.stdout + again.stderr
    queue.until_empty()
    shown = status(queue, image, "night 1")
    assert "4 done, 1 failed" in shown
    assert re.search("cut off.h5 +failed .* is truncated", shown)
    results = tmp_path / "night 1.maps"
    assert len(list(results.rglob("*.maps.h5"))) == 4
    run("hrtemvae", "analyze", tmp_path / "night 1" / "later" / ODD, "-o", tmp_path / "alone.h5", *OPTIONS)
    assert_same_maps(results / "later" / f"{ODD}.maps.h5", tmp_path / "alone.h5")
    page = (results / "session.html").read_text()
    assert page.count('<div class="movie"') == 4
    assert page.count('class="failed"') == 1
    assert not (tmp_path / "x").exists()
    # Nothing is left to do, and a refused movie stays refused until it changes.
    assert "nothing to submit" in queue.script(SESSION, "night 1", *OPTIONS).stdout
    assert not run("squeue", "-h").stdout
    shutil.copy(tmp_path / "night 1" / "m0.h5", tmp_path / "night 1" / "cut off.h5")
    assert "submitted job array" in queue.script(SESSION, "night 1", *OPTIONS).stdout
    queue.until_empty()
    assert "5 done" in status(queue, image, "night 1")


def test_a_movie_stopped_in_the_night_resumes(
    queue: Queue, image: Path, movie: Path, expected: Path, tmp_path: Path
) -> None:
    (tmp_path / "night").mkdir()
    # The last task of an array has the number of the array itself.
    for name in ("a.h5", "b.h5"):
        run("hrtemvae", "simulate", "-o", tmp_path / "night" / name, "--frames", 4, "--size", 192, 192)
    shutil.copy(movie, tmp_path / "night" / "long.h5")
    done = queue.script(SESSION, "night", *STEP, HRTEMVAE_SBATCH="--nodes=2")
    array = re.findall(r"job array (\d+)", done.stdout)[0]
    result = tmp_path / "night.maps" / "long.h5.maps.h5"
    queue.until_tiles(result, 1)
    queue.until(lambda: re.search(r"long.h5 +running .*[1-9]% done", status(queue, image, "night")), 60, "progress")
    run("scancel", "--signal=USR1", "--batch", f"{array}_2")
    waits = "waiting .* stopped by its batch script"
    queue.until(lambda: re.search(waits, status(queue, image, "night")), 120, "a movie that waits")
    queue.resume(f"{array}_2")
    queue.until_empty()
    shown = status(queue, image, "night")
    assert re.search("long.h5 +done +2 ", shown), shown
    assert len(re.findall("[ab].h5 +done +1 ", shown)) == 2, shown
    assert_same_maps(result, expected)


def test_a_watched_folder_is_submitted_movie_by_movie(queue: Queue, image: Path, tmp_path: Path) -> None:
    night = tmp_path / "night"
    night.mkdir()
    words = ["bash", SESSION, "--watch", "night", "--settle", "4", "--step", "32", "--drift", "none"]
    log = tmp_path / "watch.log"
    with log.open("w") as out:
        watching = subprocess.Popen(list(map(str, words)), cwd=tmp_path, env=queue.environment, stdout=out, stderr=out)
        try:
            for name in ("a.h5", "b.h5"):
                run("hrtemvae", "simulate", "-o", night / name, "--frames", 4, "--size", 192, 192)
                result = tmp_path / "night.maps" / f"{name}.maps.h5"
                queue.until(result.exists, 200, f"{result}\n{log.read_text()}")
                assert f"1 new: {name}\nsubmitted job array" in log.read_text()
        finally:
            watching.terminate()
            watching.wait()
    queue.until(
        lambda: subprocess.run(["pgrep", "-f", "session watch night"], check=False).returncode, 30, "the watcher's end"
    )
    queue.until_empty()
    assert "2 done" in status(queue, image, "night")
    assert (tmp_path / "night.maps" / "session.html").exists()


def test_what_is_submitted(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    for name in ("a.h5", "b.h5"):
        (tmp_path / "n" / name).write_text("")
    site = tmp_path / "site.sh"
    site.write_text('export SBATCH_TIMELIMIT=2:00:00\nHRTEMVAE_SBATCH="--nodes=2 --hold"\nHRTEMVAE_AT_ONCE=7\n')
    done = queue.script(SESSION, "n", "--precision", "bf16", HRTEMVAE_SITE=str(site))
    array = re.findall(r"job array (\d+)", done.stdout)[0]
    facts = run("scontrol", "show", "job", array).stdout
    for line in (
        "ArrayTaskId=0-1%7",
        "Requeue=1",
        "TimeLimit=02:00:00",
        "NumNodes=2",
        f"Command={SESSION} --movie 0 {tmp_path}/n",
        f"WorkDir={tmp_path}/n.maps",
        f"StdOut={tmp_path}/n.maps/logs/slurm.log",
    ):
        assert line in facts, facts


def test_other_options_for_the_same_session_are_refused(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "a.h5").write_text("")
    site = {"HRTEMVAE_SBATCH": "--hold"}
    assert queue.script(SESSION, "n", **site).returncode == 0
    refused = queue.script(SESSION, "n", "--step", "4", **site)
    assert refused.returncode == 2
    assert "with no options; use those, or choose another folder" in refused.stderr
    assert queue.script(SESSION, "nowhere").returncode == 2


def blocks(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_page_for_facilities_word_for_word(queue: Queue, image: Path, checkout: Path) -> None:
    # Environment and image of the same content exist already, as on a second reading.
    (checkout / ".venv").symlink_to(Path(sys.prefix))
    shutil.copy(image, checkout / "containers" / "hrtemvae.sif")
    environment = {k: v for k, v in queue.environment.items() if k not in ("HRTEMVAE_IMAGE", "VIRTUAL_ENV")}
    environment["PATH"] = ":".join(p for p in environment["PATH"].split(":") if ".venv" not in p)
    environment["PYTHONPATH"] = str(checkout)  # the environment belongs to another checkout
    for block in blocks(ROOT / "docs" / "facility.md"):
        done = subprocess.run(
            ["bash", "-ec", f"test ! -d .venv || source .venv/bin/activate\n{block}"],
            cwd=checkout,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
        queue.until_empty()
    logs = "".join(path.read_text() for path in checkout.glob("hrtemvae-*.log"))
    assert "failed" not in logs
    assert (checkout / "movie.maps.h5").exists()
    assert (checkout / "train.safetensors").exists()
    assert (checkout / "night.maps" / "session.html").exists()
    assert ANALYZE.name in (ROOT / "docs" / "facility.md").read_text()

"""A real cluster for these tests: Slurm with two nodes and Apptainer, made on a throwaway machine (cluster.py)."""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import unavailable

from .cluster import Cluster, install, install_apptainer, run

ROOT = Path(__file__).parents[2]
PLACE = Path("/tmp/hrtemvae-facility")
ANALYZE = ROOT / "slurm" / "analyze.sh"
CONVERT = ROOT / "slurm" / "convert.sh"
SESSION = ROOT / "slurm" / "session.sh"
TRAIN = ROOT / "slurm" / "train.sh"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes that wait for jobs."""
    willing = os.environ.get("CI") or os.environ.get("HRTEMVAE_THROWAWAY_MACHINE")
    if os.geteuid() != 0 or not willing or not Path("/etc/debian_version").exists():
        unavailable(
            "installs Slurm and Apptainer as root: on a Debian machine that may be thrown away, set "
            "HRTEMVAE_THROWAWAY_MACHINE=yes"
        )
    PLACE.mkdir(exist_ok=True)
    install()
    install_apptainer(PLACE)
    made = Cluster(PLACE)
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> Path:
    """The image, built by the command a user types."""
    path = PLACE / "hrtemvae.sif"
    done = subprocess.run(["hrtemvae", "image", "build", "-o", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture(scope="session")
def movie(cluster: Cluster) -> Path:
    """Some ten seconds of work for two nodes, in a folder whose name is awkward."""
    folder = PLACE / "movies, with 'odd' names"
    folder.mkdir(exist_ok=True)
    path = folder / "a movie.h5"
    path.unlink(missing_ok=True)
    run("hrtemvae", "simulate", "-o", path, "--frames", 30)
    return path


STEP = ("--step", "5")


@pytest.fixture(scope="session")
def expected(movie: Path) -> Path:
    """The maps of that movie, analysed outside Slurm and image."""
    path = PLACE / "expected.h5"
    path.unlink(missing_ok=True)
    run("hrtemvae", "analyze", movie, "-o", path, *STEP)
    return path


class Queue:
    """Submits jobs from a folder and follows them."""

    def __init__(self, folder: Path, image: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        self.environment = {**os.environ, "HRTEMVAE_IMAGE": str(image)}

    def submit(self, *arguments: object, **settings: str) -> str:
        """The number of a job that ``sbatch ARGUMENTS`` submits."""
        environment = {**self.environment, **settings}
        if "--nodes=2" in arguments:
            # Both are this machine, where Open MPI would name the shared memory of a rank on each of them the same.
            other = environment.get("HRTEMVAE_SITE")
            site = PLACE / f"apart-{self.folder.name}.sh"
            site.write_text((f". {shlex.quote(other)}\n" if other else "") + "export OMPI_MCA_btl=^sm\n")
            environment["HRTEMVAE_SITE"] = str(site)
        return run("sbatch", "--parsable", *arguments, cwd=self.folder, env=environment).stdout.strip()

    def script(self, *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
        """What a script does that isn't a job itself."""
        return subprocess.run(
            ["bash", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **settings},
            text=True,
            capture_output=True,
            check=False,
        )

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r"(\S+?)=(\S*)", run("scontrol", "show", "job", job).stdout))

    def log(self, job: str) -> str:
        """The log for people."""
        logs = (self.folder / f"{name}-{job}.log" for name in ("hrtemvae", "hrtemvae-convert", "hrtemvae-train"))
        return "".join(path.read_text() for path in logs if path.exists())

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} didn't come\n" + "\n".join(
                path.read_text() for path in sorted(self.folder.rglob("*.log"))
            )
            time.sleep(0.3)

    def until_tiles(self, output: Path, count: int = 2) -> None:
        """Wait until some tiles of a result are saved."""
        parts = output.with_name(output.name + ".parts")
        self.until(lambda: len(list(parts.glob("*.safetensors"))) >= count, 200, f"{count} tiles of {output}")

    def until_state(self, job: str, *states: str, seconds: float = 400) -> dict[str, str]:
        """Wait until a job is in one of ``states``; returns what Slurm knows of it."""
        self.until(lambda: self.facts(job)["JobState"] in states, seconds, f"{states} of job {job}")
        return self.facts(job)

    def until_requeued(self, job: str, starts: int = 1) -> None:
        """Wait until a job that was started so many times is back in the queue."""

        def back() -> bool:
            facts = self.facts(job)
            return facts["JobState"] == "PENDING" and int(facts["Restarts"]) >= starts

        self.until(back, 200, f"job {job} back in the queue")

    def resume(self, job: str, starts: int = 1) -> None:
        """Have a job that is back in the queue start soon: Slurm would make it wait for two minutes."""
        self.until_requeued(job, starts)
        # Not in the same second, when its credential would be the revoked one.
        run("scontrol", "update", f"JobId={job}", "StartTime=now+3")

    def until_empty(self, seconds: float = 300) -> None:
        """Wait until nothing is queued."""
        self.until(lambda: not run("squeue", "-h").stdout, seconds, "an empty queue")


@pytest.fixture
def queue(tmp_path: Path, image: Path, cluster: Cluster) -> Iterator[Queue]:
    made = Queue(tmp_path, image, cluster)
    yield made
    subprocess.run(["scancel", "--user=root"], check=False)
    made.until_empty()
    cluster.wait_for_nodes()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project's files alone, as a newcomer has them."""
    target = tmp_path / "checkout"
    files = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target

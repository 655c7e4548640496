"""The program as a user starts it, each command in a process of its own: what it printed, and how it ended."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from fork_server import Forked

BIN = Path(sys.executable).parent
FORK_SERVER = Path(__file__).with_name("fork_server.py")
SCRIPTS = Path(__file__).with_name("programs")
LONGEST_S = 180  # of one command
LAUNCHERS = tempfile.TemporaryDirectory(prefix="mpirun-")


@dataclass
class Outcome:
    """What a command left: its exit code and all it printed."""

    code: int
    text: str


def environment(threads: int = 1) -> dict[str, str]:
    """The variables a command is started with.

    Each mpirun gets a folder of its own for its files: one that is killed leaves them, and no mpirun starts beside
    those of its own PID.
    """
    env = dict(os.environ)
    env["PRTE_MCA_prte_tmpdir_base"] = tempfile.mkdtemp(dir=LAUNCHERS.name)
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    env["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    # All ranks are on this machine: Open MPI would look for its networks for a second.
    env |= {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm", "OMPI_MCA_smsc": "^cma"}
    env["OMP_NUM_THREADS"] = str(threads)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def command_line(arguments: Sequence[object], ranks: int | None = None, script: str = "") -> list[str]:
    """``hrtemvae ARGUMENTS``, or a script of programs/ with them, under mpirun if ``ranks``."""
    launcher = [] if ranks is None else ["mpirun", "-n", str(ranks)]
    program = ["python", str(SCRIPTS / script)] if script else ["hrtemvae"]
    return [*launcher, *program, *(str(a) for a in arguments)]


def _as_the_server(variables: Mapping[str, str]) -> bool:
    """Whether a process with these variables is like one of the server's: libraries look at others when they load."""
    usual = environment()
    names = {name for name in usual.keys() | variables.keys() if usual.get(name) != variables.get(name)}
    return all(name.startswith(("HRTEMVAE_", "OMP_NUM_THREADS", "PYTEST_", "PRTE_MCA_")) for name in names)


class Running:
    """A command under way. What it prints goes to the file ``log``."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked", log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = LONGEST_S) -> int:
        """Its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
            return self.process.wait(seconds)
        raise AssertionError(f"has not ended after {seconds} s:\n{self.text}")

    def wait_until(self, condition: Callable[[], object], seconds: float = 90) -> None:
        """Wait for a condition that must come true before the command ends."""
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def rank(self, rank: int) -> psutil.Process:
        """The process that the table of ranks names for ``rank``."""
        match = re.search(rf"^ +{rank} +\S+ +(\d+) ", self.text, re.MULTILINE)
        assert match, self.text
        return psutil.Process(int(match[1]))

    def end(self) -> None:
        """Kill it, with all it has started."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                started = psutil.Process(self.process.pid)
                for process in (*started.children(recursive=True), started):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            self.wait(20)


class Program:
    """``hrtemvae``, run in ``folder``: what the command does, without loading it each time.

    A ``script`` of programs/ changes something in it first. With ``variables`` that libraries may look at when they
    load, it is started and loaded as usual.
    """

    def __init__(self, server: str, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.started: list[Running] = []

    def __call__(
        self,
        *arguments: object,
        ranks: int | None = None,
        cwd: Path | None = None,
        threads: int = 1,
        script: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a command to its end; the options are those of ``start``."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            running = self.start(
                *arguments, ranks=ranks, cwd=cwd, threads=threads, script=script, log=log, variables=variables
            )
            try:
                return Outcome(running.wait(), running.text)
            finally:
                running.end()
                self.started.remove(running)

    def start(
        self,
        *arguments: object,
        ranks: int | None = None,
        cwd: Path | None = None,
        threads: int = 1,
        script: str = "",
        log: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a command; what it prints goes to ``log``, the file "log" in its folder."""
        folder = cwd or self.folder
        log = log or folder / "log"
        all_variables = environment(threads) | dict(variables or {})
        words = [str(a) for a in arguments]
        path = str(SCRIPTS / script) if script else ""
        process: subprocess.Popen[bytes] | Forked
        with Path(os.devnull).open("rb") as nothing, log.open("wb") as output:
            if ranks is None and _as_the_server(all_variables):
                descriptors = [nothing.fileno(), output.fileno(), output.fileno()]
                process = Forked(self.server, path, words, str(folder), all_variables, descriptors)
            else:
                command = command_line(words, ranks, script)
                if _as_the_server(all_variables):
                    proxy = [sys.executable, "-I", "-S", str(FORK_SERVER), "run", self.server, path]
                    command = ["mpirun", "-n", str(ranks), *proxy, *words]
                process = subprocess.Popen(
                    command, cwd=folder, env=all_variables, stdin=nothing, stdout=output, stderr=output
                )
        self.started.append(Running(process, log))
        return self.started[-1]

    def end(self) -> None:
        """Kill all that is still running."""
        for running in self.started:
            running.end()

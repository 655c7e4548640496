"""Analyses started from Python, as processes of their own: they end on signals, and resume, as on the command line."""

import shutil
import subprocess
import sys
from pathlib import Path

from hrtemvae_hpc.errors import InputError, error_of


def analyze(movie: str | Path, output: str | Path, ranks: int = 1, **options: object) -> Path:
    """Analyse ``movie`` on ``ranks`` MPI ranks of this machine; returns the result file ``output``.

    ``options`` are those of `hrtemvae analyze`: ``step=16``, ``drift="none"``, ``clip_outliers=True``. A result that is
    there already is kept, a run that was stopped is resumed. Raises InputError, Stopped, RankFailed or
    Blocked with what the program said.
    """
    if ranks > 1 and shutil.which("mpirun") is None:
        raise InputError("there is no mpirun in PATH, which several ranks need; install MPI, or use one rank.")
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    words = [str(movie), "-o", str(output)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [] if value in (None, False) else [flag, str(value)]
    command = [*launcher, sys.executable, "-m", "hrtemvae_hpc", "analyze", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        ours = [line.removeprefix("hrtemvae: ") for line in said if line.startswith("hrtemvae: ")]
        raise error_of(done.returncode, "\n".join(ours or said[-5:]))
    return Path(output)

"""Movies that are being recorded, frame by frame, as a test wants them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from commands import SCRIPTS


class Recorder:
    """A writer of an HDF5 file in a process of its own: HDF5 doesn't let one process write and read a file apart."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def write(self, frames: int) -> None:
        """Write so many more frames, until they are on disk."""
        self._ask(str(frames))

    def finish(self) -> None:
        """Close the file."""
        self._ask("close")

    def _ask(self, what: str) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def recording(path: Path, frames: np.ndarray, mode: str = "swmr") -> Iterator[Recorder]:
    """A recorder of ``frames`` [frames, rows, columns] to ``path``, in a ``mode`` of programs/record.py."""
    content = path.with_suffix(".npy")
    np.save(content, frames)
    command = [sys.executable, str(SCRIPTS / "record.py"), str(path), str(content), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Recorder(process)
        process.kill()

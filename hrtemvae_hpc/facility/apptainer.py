"""Apptainer (or Singularity), through spython.

spython calls a program named `singularity`, asks for sudo and ends the process when something is missing; here the
program is found under either name, never with sudo, and failures are errors.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hrtemvae_hpc.errors import InputError


class Apptainer:
    """The container program of this machine."""

    def __init__(self) -> None:
        """Raises InputError if there is none."""
        program = shutil.which("apptainer") or shutil.which("singularity")
        if program is None:
            raise InputError("neither apptainer nor singularity is on the PATH; install one, or load its module.")
        try:
            from spython.main import get_client
        except ImportError as error:
            raise InputError("spython is missing; install it with `pip install hrtemvae-hpc[facility]`.") from error
        self.program = program
        self._client = get_client()
        command = self._client._init_command

        def with_program(*arguments: Any, **named: Any) -> list[str]:
            return [program, *command(*arguments, **named)[1:]]

        self._client._init_command = with_program

    def lines(self, action: str, *arguments: object) -> Iterator[str]:
        """The output of ``apptainer ACTION ARGUMENTS`` as it comes, both streams.

        Raises subprocess.CalledProcessError if it fails.
        """
        from spython.utils import stream_command

        # Both streams in one: spython reads only one of two pipes, and a full one would block the program forever.
        quiet = [] if action == "build" else ["--quiet"]
        command = [*self._client._init_command(action, quiet), *map(str, arguments)]
        yield from stream_command(command, no_newline_regexp="$^", output_type="both")

    def labels(self, image: Path) -> dict[str, str] | None:
        """The labels of ``image``, None if it can't be read."""
        inspected = self._client.inspect(str(image))
        if "attributes" not in inspected:
            return None
        return dict(inspected["attributes"]["labels"] or {})

    def output(self, image: Path, command: Sequence[str]) -> str:
        """What ``command`` prints inside ``image``; raises InputError if it fails."""
        try:
            return "".join(self.lines("exec", image, *command))
        except subprocess.CalledProcessError as error:
            raise InputError(f"{image}: `{' '.join(command)}` fails inside it; build the image again.") from error

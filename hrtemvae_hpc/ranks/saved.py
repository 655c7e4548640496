"""A sign to the job script that work was saved: it starts ranks again only while they get further."""

import os
from contextlib import suppress
from pathlib import Path


def note_saved() -> None:
    """Make the file in HRTEMVAE_SAVED, if any, a byte longer: a part of the work is on the disk for good."""
    if path := os.environ.get("HRTEMVAE_SAVED"):
        with suppress(OSError), Path(path).open("ab") as file:
            file.write(b"\n")

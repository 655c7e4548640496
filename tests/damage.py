"""Damaged files."""

from pathlib import Path

import h5py


def break_chunk(path: Path, dataset: str, index: int) -> None:
    """Overwrite a stored chunk with noise."""
    with h5py.File(path, "r") as file:
        chunk = file[dataset].id.get_chunk_info(index)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 2)
        file.write(b"\xff" * (chunk.size - 2))

"""The files of images that correct movies: movies themselves, masks, or an HDF5 file with one image."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.movie.formats.npy import NPY
from hrtemvae_hpc.movie.frames import Description, FrameSource, Storage
from hrtemvae_hpc.movie.hdf5_frames import read_only_image
from hrtemvae_hpc.movie.opening import format_of, open_frames


def open_images(path: Path) -> FrameSource:
    """The frames at ``path``, or its only image as one frame. Booleans become 0 and 1, of type uint8.

    Raises InputError if there is neither, or several images.
    """
    known = format_of(path) if is_file(path) else None
    if known is None and is_file(path) and (found := read_only_image(path)):
        return ImageFrames(path, *found)
    if known is NPY and (stack := NPY.read(path)).description.dtype == bool:
        byte = np.dtype(np.uint8)
        description, placement = replace(stack.description, dtype=byte), replace(stack.placement, dtype=byte)
        return replace(stack, description=description, placement=placement).open(path, str(path))
    return open_frames(path, MovieSection())


class ImageFrames(FrameSource):
    """A single frame in memory."""

    def __init__(self, path: Path, dataset: str, image: np.ndarray) -> None:
        """The ``image`` [rows, columns] that was read from ``dataset`` of ``path``."""
        self.path, self.dataset = path, dataset
        self.where = f"{path}, dataset {dataset}"
        self._pixels = image.view(np.uint8)[None] if image.dtype == bool else image[None]
        self.description = Description("HDF5", self._pixels.shape, self._pixels.dtype)
        self.files = [path]
        self.storage = Storage("contiguous", None, "not compressed")
        self.unit = (1, 1, image.shape[1])

    def prepare(self, frames: slice, area: Area) -> None:
        pass

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        pixels[place or ...] = self._pixels[frames, area.rows, area.columns]

    def close(self) -> None:
        pass

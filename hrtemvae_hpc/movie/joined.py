"""Several movies, or single frames, read as one movie."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.formats.names import natural
from hrtemvae_hpc.movie.frames import Description, FrameSource
from hrtemvae_hpc.movie.joined_frames import JoinedFrames
from hrtemvae_hpc.movie.lazy_frames import LazyFrames, OpenSources
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.opening import joined_name, open_frames, open_single_frames

_KEPT_OPEN = 64  # files; of more, each is opened when it is read


def open_movies(paths: Sequence[Path], section: MovieSection) -> Movie:
    """The movie that ``paths`` hold together, in the natural order of their names.

    Raises InputError if one of them can't be read, or is of another shape or type than the first.
    """
    ordered = sorted(paths, key=lambda path: natural(str(path)))
    if len(ordered) == 1:
        return Movie(ordered[0], section)
    return Movie(ordered[0], section, source=open_single_frames(ordered, section) or _join(ordered, section))


def _join(paths: Sequence[Path], section: MovieSection) -> FrameSource:
    pool = OpenSources(_KEPT_OPEN)
    parts: list[LazyFrames] = []
    for path in paths:
        parts.append(LazyFrames(path, partial(open_frames, path, section), pool))
        _check_alike(parts[-1], parts[0])
    return JoinedFrames(paths[0], joined_name(paths), parts, _joined(parts), most_open=pool.most)


def _check_alike(part: FrameSource, first: FrameSource) -> None:
    about, expected = part.description, first.description
    if (about.shape[1:], about.dtype) != (expected.shape[1:], expected.dtype):
        raise InputError(
            f"{part.path}: holds frames of {_kind(about)}, those of {first.path} are of {_kind(expected)}; only frames "
            "of one shape and type can be joined."
        )


def _kind(about: Description) -> str:
    return f"{about.shape[1]} x {about.shape[2]} pixels of type {about.dtype}"


def _joined(parts: Sequence[FrameSource]) -> Description:
    """What all parts say together: a calibration where they agree, times where these go on from part to part."""
    abouts = [part.description for part in parts]
    first = abouts[0]
    notes = [f"{part.path}: {note}" for part in parts for note in part.description.notes]
    pixel_size = first.pixel_size_nm
    if any(about.pixel_size_nm != pixel_size for about in abouts):
        pixel_size = None
        notes.append("the files state different sizes of a pixel: not calibrated without --pixel-size")
    known = [about.times_s for about in abouts if about.times_s is not None]
    times = np.concatenate(known) if len(known) == len(abouts) else None
    if times is not None and not (np.diff(times) > 0).all():
        times = None
        notes.append("the times in the files don't go on from one to the next: none are known without --frame-time")
    return Description(
        ", ".join(sorted({about.format for about in abouts})),
        (sum(about.shape[0] for about in abouts), *first.shape[1:]),
        first.dtype,
        pixel_size,
        first.frame_time_s if all(about.frame_time_s == first.frame_time_s for about in abouts) else None,
        times,
        {"files": [{"name": part.path.name, **part.description.metadata} for part in parts]},
        tuple(notes),
    )

"""What in a folder is a movie: stacks, recordings of several files, and folders that hold one frame in each file.

- An HDF5 file is a movie by its name, unless it can be opened and holds too few frames.
- A file of any other format is a movie by what it says: that it holds frames enough for an analysis.
- A folder of files with one frame each, of one format, shape and type, is one movie if no other movie, image or HDF5
  file lies beside them; so is the folder that holds Gatan's Hour_00.
- Files from which another movie is read as well are none of their own. An .emi file only describes .ser files.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.movie.formats.listing import is_hour
from hrtemvae_hpc.movie.formats.names import natural
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.opening import all_formats, format_of, open_frames

RESULT = ".maps.h5"
_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs", ".emd", ".hspy", ".dm5")
_FEWEST = 3  # frames that an analysis needs
Ready = Callable[[Iterable[Path]], bool]  # whether files may be opened


@dataclass
class Found:
    """What a search found."""

    names: list[str] = field(default_factory=list)  # of movies, relative to the folder
    left_out: list[str] = field(default_factory=list)  # sentences on files of known formats that can't be opened


def find_movies(folder: Path, session: Path, ready: Ready = lambda _: True) -> Found:
    """The movies under ``folder``, without results of this program, hidden files and what lies in ``session``.

    Files that are not ``ready`` are not opened, and movies that some of them belong to are left for later.
    """
    found = Found()
    for place, folders, names in os.walk(folder):
        here = Path(place)
        is_tree = any(map(is_hour, folders))
        folders[:] = [
            name
            for name in folders
            if not (
                name.startswith(".") or name.endswith((".parts", RESULT)) or here / name == session or is_hour(name)
            )
        ]
        visible = (name for name in names if not name.startswith(".") and not name.lower().endswith(RESULT))
        every = [here / name for name in sorted(visible, key=natural)]
        files = [path for path in every if ready([path])]
        are_frames = not is_tree and _are_frames(files)
        whole = filter(is_file, here.rglob("*")) if is_tree else every if are_frames else []
        if not ready(whole):
            continue
        if not are_frames:
            movies, refused = _stacks(files, ready)
            found.names += [str(path.relative_to(folder)) for path in movies]
            found.left_out += [] if is_tree else refused  # a recording's director is no movie of its own
        if (is_tree or are_frames) and here == folder:
            found.left_out.append(f"{folder}: holds frames of one movie itself; analyse it with `hrtemvae analyze`.")
        elif is_tree or are_frames:
            found.names.append(str(here.relative_to(folder)))
    return found


def _are_frames(files: Sequence[Path]) -> bool:
    """Whether ``files``, in order, are frames of one movie, judged by few of them."""
    groups = [list(group) for _, group in groupby(sorted(files, key=_ending), _ending)]
    if any(_ending(group[0]) in _HDF5 for group in groups):
        return False
    known = [group for group in groups if _is_known(group[0])]
    if len(known) != 1 or len(known[0]) < _FEWEST:
        return False
    try:
        largest = max(known[0], key=lambda path: path.stat().st_size)
        kinds = {_kind(path) for path in (known[0][0], known[0][-1], largest)}
    except (InputError, OSError):
        return False
    return len(kinds) == 1 and kinds.pop()[0] == 1


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _is_known(path: Path) -> bool:
    """Whether a file is of a format of movies other than HDF5."""
    return is_file(path) and format_of(path) in all_formats()


def _kind(path: Path) -> tuple[object, ...]:
    with closing(open_frames(path, MovieSection())) as source:
        about = source.description
        return *about.shape, about.dtype, about.format


def _stacks(files: Sequence[Path], ready: Ready) -> tuple[list[Path], list[str]]:
    """Those of ``files`` that are movies of ``ready`` files, and why others of known formats can't be opened."""
    movies, left_out = [], []
    parts: set[Path] = set()
    for path in files:
        named = path.name.lower().endswith(_HDF5)
        if path in parts or not (named or _is_known(path)):
            continue
        try:
            with closing(open_frames(path, MovieSection())) as source:
                if source.description.shape[0] >= _FEWEST:
                    others = [other for other in _files_of(source) if other != path]
                    parts.update(others)
                    movies += [path] if ready(others) else []
        except InputError as error:
            if named:
                movies.append(path)
            else:
                left_out.append(str(error))
    return [path for path in movies if path not in parts], left_out


def _files_of(source: FrameSource) -> Iterator[Path]:
    """All files that a movie is read from; none if one is missing, which an analysis will report."""
    frames, rows, columns = source.description.shape
    try:
        source.prepare(slice(0, frames, 1), Area.whole(rows, columns))
    except InputError:
        return
    yield from source.files

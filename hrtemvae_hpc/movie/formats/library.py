"""Calls of libraries that trust what a file says about itself: bounded, and failing in one sentence."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.memory import memory_of_at_most

_ROOM = 3 * 2**28  # bytes that reading a header may take
_LONGEST, _LONGEST_TEXT = 1000, 2**22  # values of an array, and characters of a text, that metadata keep


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """The block calls a library to read the header of ``path``; whatever it raises becomes InputError.

    What it prints, warns of or logs is dropped.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with memory_of_at_most(_ROOM), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: its header claims more than can be in it; copy the file again.") from None
    except Exception as error:
        what = printable(" ".join(str(error).split()))[:100] or type(error).__name__
        raise InputError(f"{path}: its header is damaged or cut off ({what}); copy it again.") from error


def as_json(value: object) -> object:
    """``value`` as JSON can hold it; longer arrays and texts are left out, as None."""
    if isinstance(value, np.void) and value.dtype.names:
        return {name: as_json(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return as_json(value.tolist()) if value.size <= _LONGEST else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {printable(str(key)): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value] if len(value) <= _LONGEST else None
    if isinstance(value, bytes):
        value = value.rstrip(b"\0 ").decode("latin-1")
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else None
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float) or value is None else str(value)

"""The program with a function that never returns: HRTEMVAE_HOLD, a module's or class's (package.module:Class.name).

HRTEMVAE_HOLD_IN says where it waits: in "python", where a signal can interrupt it, first in a "callback", where Python
discards what a signal raises, or in "C", where none can interrupt it.
HRTEMVAE_HOLD_RANK names the only rank that is held.
"""

import ctypes
import os
import threading
import weakref
from importlib import import_module
from pathlib import Path

from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks.guard import rank_of_launcher


def hold(*_: object, **__: object) -> None:
    Path("held").touch()
    if os.environ["HRTEMVAE_HOLD_IN"] == "callback":
        collected = threading.Event()
        reference = weakref.ref(collected, lambda _: threading.Event().wait())
        del collected
        assert reference() is None
    if os.environ["HRTEMVAE_HOLD_IN"] != "C":
        threading.Event().wait()
    mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


if os.environ.get("HRTEMVAE_HOLD_RANK", str(rank_of_launcher())) == str(rank_of_launcher()):
    module, _, path = os.environ["HRTEMVAE_HOLD"].partition(":")
    *owners, name = path.split(".")
    owner = import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, hold)
main()

"""Where libraries keep what they compile: in a folder on the node, if the user's home can't be written.

Some sites mount homes read-only on compute nodes. There, each process would compile again.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

_FOLDERS = {
    "NUMBA_CACHE_DIR": "numba",
    "TRITON_CACHE_DIR": "triton",
    "MIOPEN_USER_DB_PATH": "miopen",
    "MIOPEN_CUSTOM_CACHE_DIR": "miopen",
    "MPLCONFIGDIR": "matplotlib",
}


def keep_caches() -> None:
    """Name folders that can be written to the libraries, before they are loaded, if the home can't.

    Variables that are set stay as they are. All stay unset if the folder on the node isn't this user's alone: others
    could put code there.
    """
    if os.access(os.path.expanduser("~"), os.W_OK):
        return
    import tempfile  # takes a while to load

    with suppress(OSError):  # without any folder, each process compiles for itself
        caches = Path(tempfile.gettempdir()) / f"hrtemvae-{os.getuid()}"
        caches.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(caches):
            return
        for variable, name in _FOLDERS.items():
            folder = caches / name
            folder.mkdir(exist_ok=True)
            os.environ.setdefault(variable, str(folder))


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077

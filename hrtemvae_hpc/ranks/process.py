"""Which process this is, by what the kernel counts: distinct from any other, whatever clocks say."""

import os
from pathlib import Path


def boot_id() -> str:
    """The kernel's name for its time since the host was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_namespace() -> str:
    """The kernel's name for the namespace in which this process's number counts."""
    return os.readlink("/proc/self/ns/pid")


def start_ticks(pid: int) -> int | None:
    """When a process of this namespace was started, in ticks since the boot; None if it isn't there or has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])  # proc(5)

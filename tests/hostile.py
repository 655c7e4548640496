"""What hostile files may cost: each is read in a process of its own, with 20 seconds and 1 GB."""

import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from hrtemvae_hpc.errors import InputError

SECONDS = 20
MEMORY = 10**9  # bytes beyond what the tests themselves hold


def within_budget(call: Callable[[], object]) -> BaseException | None:
    """What ``call`` raised in a forked child; fails if it takes more than 20 s or 1 GB, or ends the process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(call, writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        pickled = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != -signal.SIGALRM, f"it took more than {SECONDS} s"
    assert status == 0, f"it ended the process with {status}"
    raised: BaseException | None
    raised, trace = pickle.loads(pickled)
    assert not _is_memory(raised, trace), f"it asked for more than {MEMORY // 10**6} MB:\n{trace}"
    return raised


def refusal(call: Callable[[], object]) -> str:
    """The sentence with which ``call`` refuses its input, within the budget and fit for a terminal."""
    raised = within_budget(call)
    assert isinstance(raised, InputError), repr(raised)
    text = str(raised)
    assert text.isprintable(), repr(text)
    assert len(text) < 1000, text
    return text


def _run(call: Callable[[], object], writer: int) -> None:
    raised, trace = None, ""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        torch.set_num_threads(1)  # the threads of the parent are not there after a fork
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
        try:
            call()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is shown
            raised, trace = error, "".join(traceback.format_exception(error))
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            pickled = pickle.dumps((raised, trace))
            pickle.loads(pickled)
        except Exception:  # noqa: BLE001  not all errors can be pickled
            pickled = pickle.dumps((RuntimeError(trace), trace))
        with open(writer, "wb") as answer:
            answer.write(pickled)
    finally:
        os._exit(0)


def _is_memory(raised: BaseException | None, trace: str) -> bool:
    """Whether memory ran out somewhere on the way to what was raised."""
    return raised is not None and ("MemoryError" in trace or "allocate memory" in trace)

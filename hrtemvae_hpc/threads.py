"""Functions on the threads of a rank: one for many items, or one beside all else."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def on_threads(pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """``function`` of each item, on the threads of ``pool``; no further call starts once one has failed."""
    jobs = [pool.submit(function, item) for item in items]
    try:
        return [job.result() for job in jobs]
    finally:
        for job in jobs:
            job.cancel()


def in_background(function: Callable[[], T]) -> "Future[T]":
    """What ``function`` will return, from a thread of its own that the end of the process doesn't wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  for whoever asks for the result
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future

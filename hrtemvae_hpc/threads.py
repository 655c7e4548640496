"""One function for many items, on the threads of a rank."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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

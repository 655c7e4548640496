"""The program with a rank 0 that takes HRTEMVAE_PACE seconds to write the result; each rank says when it ends."""

import atexit
import os
import time
from collections.abc import Callable

from hrtemvae_hpc.analysis import job
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks.guard import rank_of_launcher

write: Callable[..., list[int]] = job.write_result  # type: ignore[attr-defined]


def slow(*arguments: object) -> list[int]:
    time.sleep(float(os.environ["HRTEMVAE_PACE"]))
    return write(*arguments)


job.write_result = slow  # type: ignore[attr-defined, assignment]
atexit.register(lambda: print(f"rank {rank_of_launcher()} ends", flush=True))
main()

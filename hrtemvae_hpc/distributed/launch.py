"""Running a job on every rank, and ending the rank, and where it must be all of them, with the right exit code."""

import os
import traceback
from collections.abc import Callable
from typing import NoReturn

from hrtemvae_hpc.distributed.guard import StopRequest, rank_of_launcher, run_guarded
from hrtemvae_hpc.distributed.world import World, join_world
from hrtemvae_hpc.errors import HrtemvaeError, tell

Join = Callable[[Callable[[], bool]], World]


def run_in_world(
    job: Callable[[World], None], stop: Callable[[], bool] = lambda: False, join: Join = join_world
) -> NoReturn:
    """Run ``job`` as this rank of the world that ``join`` finds; ``stop`` tells whether the rank was asked to stop."""
    try:
        world = join(stop)
    except HrtemvaeError as error:
        if rank_of_launcher() == 0:  # which says it for all
            tell(error)
        os._exit(error.exit_code)
    try:
        job(world)
    except HrtemvaeError as error:
        tell(error, "" if world.is_root else f"rank {world.rank} on {world.host}: ")
        world.leave(error.exit_code)
    except Exception:  # noqa: BLE001  a defect of ours must end every rank
        traceback.print_exc()
        world.abort(1)
    world.leave(0)


def run_guarded_in_world(job: Callable[[World, StopRequest], None], join: Join = join_world) -> int:
    """The same under a guardian process, which tells of a rank that is killed; returns the rank's exit code."""
    return run_guarded(lambda stop: run_in_world(lambda world: job(world, stop), lambda: bool(stop), join))

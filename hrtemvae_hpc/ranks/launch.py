"""Running a job on every rank, and ending it, or all of them if necessary, with the right exit code."""

import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from hrtemvae_hpc.errors import HrtemvaeError, RankFailed, report
from hrtemvae_hpc.ranks.guard import StopRequest, end_process, rank_of_launcher, run_guarded
from hrtemvae_hpc.ranks.world import RankEnds, World, join_world

_FIRST_S = 0.5  # for rank 0 to report what is wrong: launchers end all ranks when one has ended

Job = Callable[[World, StopRequest], None]
Join = Callable[[Callable[[], bool]], World]


def run_guarded_in_world(load: Callable[[], Job], join: Join = join_world) -> int:
    """Run a job as this rank of the world that ``join`` finds, under a guardian process; returns its exit code.

    ``load`` imports what the job needs, which takes seconds, and returns the job.
    """
    return run_guarded(lambda stop: _run_in_world(load(), stop, join))


def _run_in_world(job: Job, stop: StopRequest, join: Join) -> NoReturn:
    try:
        world = join(lambda: bool(stop))
    except HrtemvaeError as error:
        if rank_of_launcher() == 0:  # which reports for all
            report(error)
        else:
            time.sleep(_FIRST_S)
        end_process(error.exit_code)
    try:
        job(world, stop)
    except RankEnds as ends:
        world.leave(ends.code)
    except HrtemvaeError as error:
        report(error, "" if world.is_root else f"rank {world.rank} on {world.host}: ")
        world.leave(error.exit_code)
    except MemoryError as error:
        what = f"rank {world.rank} on {world.host}: memory ran out ({error}); lower --max-memory, or start fewer ranks."
        report(RankFailed(what))
        world.leave(RankFailed.exit_code)
    except Exception:  # noqa: BLE001  a defect of this program must end every rank
        traceback.print_exc()
        world.abort(1)
    world.leave(0)

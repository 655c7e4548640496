"""The program with tiles of HRTEMVAE_TILES blocks (2x3), each of which takes HRTEMVAE_PACE seconds more.

Several paces (0.2,0.6) are those of the ranks. Where HRTEMVAE_TIMES names a folder, each rank notes there when it
finished a tile.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from hrtemvae_hpc.analysis import opened, worker
from hrtemvae_hpc.analysis.plan import Plan, make_plan
from hrtemvae_hpc.analysis.worker import Finished, Order
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.guard import rank_of_launcher
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid

ROWS, COLUMNS = map(int, os.environ["HRTEMVAE_TILES"].split("x"))
PACES = [float(pace) for pace in os.environ.get("HRTEMVAE_PACE", "0").split(",")]
TIMES = os.environ.get("HRTEMVAE_TIMES")
compute = worker.Worker._compute


def planned(
    engine: Engine,
    reader: TileReader,
    grid: WindowGrid,
    ranks: Sequence[RankResources],
    max_memory: int | None,
    known: Tiling | None = None,
) -> Plan:
    return make_plan(engine, reader, grid, ranks, max_memory, known or Tiling(grid, engine.block, ROWS, COLUMNS))


def paced(self: worker.Worker, order: Order, tiling: Tiling) -> Finished:
    rank = rank_of_launcher()
    time.sleep(PACES[rank % len(PACES)])
    done = compute(self, order, tiling)
    if TIMES:
        with (Path(TIMES) / f"rank{rank}").open("a") as log:
            print(time.time(), file=log)
    return done


opened.make_plan = planned  # type: ignore[attr-defined]
worker.Worker._compute = paced  # type: ignore[method-assign]
main()

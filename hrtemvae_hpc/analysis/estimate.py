"""How long an analysis takes on a world of ranks, from what its stages cost: for `plan`, and for larger clusters.

    on each node: the movie is decoded once, if it is staged -> tiles, as ranks become free -> the result

Tiles are handed out one by one, which is simulated here rank by rank. Rank 0 saves the maps of all tiles, one at a
time, besides its own work: with many fast ranks, that may hold up the others.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hrtemvae_hpc.analysis.plan import Plan, map_bytes
from hrtemvae_hpc.ranks.resources import RankResources

# Measured once, on a local disk (benchmarks/RESULTS.md). The other rates are each rank's own, from its trial.
SAVE_S = 4e-9  # per byte of maps: to write it to its part file
RESULT_S = 1.5e-9  # per byte of maps: to read it from there and write it to the result


@dataclass(frozen=True)
class Estimate:
    """Seconds of the phases of an analysis after its start."""

    staging: float
    tiles: float
    result: float
    busy: float  # share of the tiles' seconds in which ranks work on them, all ranks together
    saving: float  # of the tiles' seconds, those in which rank 0 saves maps

    @property
    def total(self) -> float:
        return self.staging + self.tiles + self.result


def estimate(plan: Plan, latents: int, ranks: Sequence[RankResources]) -> Estimate:
    """Seconds of ``plan`` on ``ranks``, from their rates."""
    decode = [r.decode_rate or math.inf for r in ranks]  # 0 if the trial could not decode
    staging = tile_decode = 0.0
    if plan.source == "movie":
        tile_decode = plan.decoded_bytes / plan.tiling.count
    else:
        together: dict[str, float] = defaultdict(float)
        for rank, rate in zip(ranks, decode, strict=True):
            together[rank.host] += rate
        staging = plan.decoded_bytes / len(together) / min(together.values())
    free = [(0.0, i) for i in range(len(ranks))]
    saved = worked = 0.0
    for tile in plan.tiling.tiles:
        at, i = heapq.heappop(free)
        work = tile.windows * plan.frames / ranks[i].encode_rate + tile_decode / decode[i]
        heapq.heappush(free, (at + work, i))
        worked += work
        saved = max(saved, at + work) + map_bytes(tile.shape, latents, plan.cells) * SAVE_S
    maps = map_bytes((plan.tiling.grid.rows, plan.tiling.grid.columns), latents, plan.cells)
    return Estimate(staging, saved, maps * RESULT_S, worked / (len(ranks) * saved), maps * SAVE_S)

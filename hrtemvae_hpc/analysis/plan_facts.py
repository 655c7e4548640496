"""The plan of an analysis as JSON, for programs: sizes in bytes, times in seconds."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from hrtemvae_hpc.analysis.estimate import estimate
from hrtemvae_hpc.analysis.lattice import describe_lattice
from hrtemvae_hpc.analysis.opened import Job
from hrtemvae_hpc.analysis.plan import Plan
from hrtemvae_hpc.analysis.scale import describe_scale
from hrtemvae_hpc.ranks.resources import RankResources


def plan_as_json(job: Job, plan: Plan, ranks: Sequence[RankResources], drift_s: float) -> str:
    """What ``describe_plan`` says, as an object of JSON on one line; ``drift_s`` as there."""
    movie, model, grid = job.movie, job.model, plan.tiling.grid
    seconds = estimate(plan, model.architecture.latents, ranks)
    facts = {
        "movie": str(movie.path),
        "dataset": movie.source.dataset,
        "format": movie.source.description.format,
        "frames": movie.shape[0],
        "pixels": movie.shape[1:],
        "type": str(movie.dtype),
        "pixel_size_nm": movie.pixel_size_nm,
        "frame_time_s": movie.frame_time_s,
        "storage": str(movie.storage),
        "model": model.name,
        "model_sha256": model.sha256,
        "windows": [grid.rows, grid.columns],
        "step": grid.step,
        "encodings": plan.encodings,
        "tiles": plan.tiling.count,
        "source": plan.source,
        "stage_bytes": plan.stage_bytes,
        "tile_bytes": plan.tile_bytes,
        "working_bytes": plan.working_bytes,
        "decoded_bytes": plan.decoded_bytes,
        "read_amplification": plan.read_amplification,
        "seconds": {"drift": drift_s, **asdict(seconds), "total": drift_s + seconds.total},
        "ranks": [asdict(rank) | {"memory": plan.memory[rank.rank]} for rank in ranks],
        "notes": list(movie.source.description.notes),
        "warnings": [
            *describe_scale(movie, model, job.reader.transform.resampler)[1],
            *describe_lattice(movie, model, job.reader.transform.resampler)[1],
        ],
    }
    return json.dumps(facts)

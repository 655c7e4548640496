"""What a result says, besides its maps, about the analysis that made it."""

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from hrtemvae_hpc import __version__
from hrtemvae_hpc.analysis.against import describe_comparison
from hrtemvae_hpc.analysis.coordinator import RankRecord
from hrtemvae_hpc.analysis.drift import Followed
from hrtemvae_hpc.analysis.opened import Job
from hrtemvae_hpc.analysis.parts import Parts
from hrtemvae_hpc.analysis.plan import Plan
from hrtemvae_hpc.analysis.shown_windows import WindowViewer
from hrtemvae_hpc.analysis.stage import Stage
from hrtemvae_hpc.maps.result_writing import ResultInfo
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preview import Preview
from hrtemvae_hpc.statistics.significance import PermutationTest


@dataclass(frozen=True)
class Account:
    """What a run has done, and the ``image`` that it ran in as of ``image_in_use``."""

    records: list[RankRecord]
    image: Mapping[str, str | None]
    resumed: frozenset[int] = frozenset()  # tiles that were there
    seconds: float = 0.0


def result_info(
    job: Job,
    plan: Plan,
    followed: Followed | None,
    test: PermutationTest,
    parts: Parts,
    account: Account,
    preview: Preview,
    stage: Stage | None = None,
) -> ResultInfo:
    """What the result of ``job`` holds besides its maps; the ``stage`` if the movie is still staged."""
    movie, records = job.movie, account.records
    decoded = sum(r.decoded_bytes for r in records)
    resumed = sum(plan.tiling.tiles[i].windows for i in account.resumed) / (job.grid.rows * job.grid.columns)
    needed = plan.needed_bytes * (1 - resumed)
    stages = {stage: sum(r.seconds[stage] for r in records) for stage in records[0].seconds}
    return ResultInfo(
        identity=parts.key,
        grid=job.grid,
        latent_source_index=job.model.latent_order,
        origin=(movie.top, movie.left),
        pixel_size_nm=movie.pixel_size_nm,
        frame_time_s=movie.frame_time_s,
        resampling=resampling(job),
        preview=preview,
        curves=followed.curves(movie) if followed else None,
        reconstructed=job.engine.reconstruction is not None,
        cells=plan.cells,
        show_windows=WindowViewer(job, preview[2], stage) if job.model.decoder else None,
        ratios=test.ratios,
        times_s=movie.times_s,
        compared_with=describe_comparison(job.config),
        process={
            **describe_inputs(job, movie),
            "frames": movie.frame_indices.tolist(),
            **account.image,
            "ranks": [dataclasses.asdict(r.resources) for r in records],
            "tiles": plan.tiling.count,
            "tiles_resumed": len(account.resumed),
            "encodings": plan.encodings,
            "encodings_resumed": round(plan.encodings * resumed),
            "seconds": account.seconds,
            "seconds_by_stage": stages,
            "bytes_read": decoded,
            "read_amplification": decoded / needed if needed else 0.0,
        },
    )


def resampling(job: Job) -> tuple[float, float]:
    """Analysed rows and columns per row and column of the movie."""
    (rows, columns), (_, height, width) = job.reader.shape, job.movie.shape
    return rows / height, columns / width


def describe_inputs(job: Job, movie: Movie) -> dict[str, object]:
    """The part of the process record that names program, configuration, model and ``movie``, but for its frames."""
    return {
        "program": "hrtemvae",
        "version": __version__,
        "command_line": shlex.join(sys.argv),
        "configuration": job.config.model_dump(mode="json"),
        "model": job.model.name,
        "model_sha256": job.model.sha256,
        "model_provenance": dict(job.model.provenance),
        "model_groups": dict(job.model.groups),
        "movie": str(movie.path.absolute()),
        "movie_dataset": movie.source.dataset,
        "movie_layout": movie.source.description.format,
        "movie_shape": list(movie.full_shape),
        "movie_storage": str(movie.storage),
        "movie_fingerprint": movie.fingerprint,
        "region": [movie.top, movie.top + movie.shape[1], movie.left, movie.left + movie.shape[2]],
        "arithmetic": job.arithmetic,
    }

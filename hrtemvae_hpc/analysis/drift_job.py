"""The drift of a movie as a table and a picture."""

from pathlib import Path

from hrtemvae_hpc.analysis.drift import follow, measure_drift
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.drift.table import write_drift
from hrtemvae_hpc.files import replacing, writing
from hrtemvae_hpc.maps.figures import frame_curves
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_drift, is_picture
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import say
from hrtemvae_hpc.ranks.resources import compute_threads
from hrtemvae_hpc.ranks.world import World


def write_drift_of(world: World, path: Path, config: AnalysisConfig, output: Path, stop: StopRequest) -> None:
    """Measure the drift of the movie ``path`` and write it to ``output`` (CSV), and a picture beside it.

    Every rank calls this. Raises InputError or Stopped.
    """
    picture = world.on_root(lambda: beside(output, ".png"))
    outputs = [Output(output, "the table", is_drift), Output(picture, "its picture", is_picture)]
    with world.on_all(lambda: Movie(path, config.movie, config.drift.roi)) as movie:
        world.on_root(lambda: check_outputs(outputs, movie.files))
        estimate = measure_drift(world, movie, config, compute_threads(world), stop)
        followed = follow(movie, config, estimate, None)

        def write() -> None:
            curves = followed.curves(movie)
            write_drift(output, estimate.drift, movie.frame_indices, movie.times_s)
            with writing(picture), replacing(picture) as aside:
                aside.write_bytes(frame_curves(curves))
            say(f"drift {followed.verdict}: {output}, drawn in {picture}")
            if followed.warning:
                say(f"warning: {followed.warning}")

        world.on_root(write)

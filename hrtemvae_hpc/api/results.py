"""Results of an analysis as xarray."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from hrtemvae_hpc.interpretation.places import place_at, position
from hrtemvae_hpc.interpretation.reopen import reopen
from hrtemvae_hpc.interpretation.trace import trace as trace_places
from hrtemvae_hpc.maps import result as result_file
from hrtemvae_hpc.maps.certainty import map_places
from hrtemvae_hpc.maps.result import TITLES

_ABOUT = "version", "command_line", "model", "model_sha256", "movie", "configuration", "pixel_size", "frame_time"


def open_result(path: str | Path) -> xr.Dataset:
    """The maps of a result file, in memory.

    Variables ``variance``, ``spearman``, ``time_correlated_variance`` and ``mean`` [latent, y, x] float32,
    ``valid_frames`` [y, x] and, if the model had a decoder, ``reconstruction`` [y, x]. How certain they are say
    ``noise``, ``excess_variance``, ``change``, ``change_frame``, ``significance``, ``significance_p_value`` and others
    of docs/certainty.md, and ``reproducibility`` [latent]. ``processes`` [process, y, x] and ``process_weights``
    [process, latent] are those of docs/processes.md; ``process_series`` [process, bin] and ``process_span`` [process,
    end] say when they happen. ``groups`` [group, y, x] and ``group_latents`` [group, latent], where the model knows its
    groups, are those of docs/page.md. ``series`` [cell_y, cell_x, latent, bin] holds latents over time, at the windows
    with the centres ``series_y`` and ``series_x``, from the frames ``bin_frame`` on. The coordinates y and x are the
    windows' centres in nm, or pixels where the movie has no pixel size, as their attribute ``units`` says. The
    attributes name movie, model and configuration. Raises InputError if the file isn't a result as it was written.
    """
    with result_file.open_result(Path(path)) as result:
        dataset = xr.Dataset(coords={"latent": result.latent, "y": result.y, "x": result.x})
        for name, title in TITLES.items():
            values = np.stack([result.maps(name, int(latent)) for latent in result.latent])
            dataset[name] = (("latent", "y", "x"), values, {"long_name": title})
        for place in map_places(result.file["entry"]):
            values = np.stack([result.maps(place.removesuffix("/data"), int(latent)) for latent in result.latent])
            dataset[place.removesuffix("/data").replace("/", "_")] = (("latent", "y", "x"), values)
        if result.reproducibility is not None:
            dataset["reproducibility"] = ("latent", result.reproducibility)
        if result.processes is not None:
            found = result.processes.found
            dataset["processes"] = (("process", "y", "x"), found.maps)
            dataset["process_weights"] = (("process", "latent"), found.weights)
            dataset.coords["process"] = np.arange(1, len(found) + 1)
            dataset["process_span"] = (("process", "end"), result.processes.span)
            if len(found):
                dataset["process_series"] = (("process", "bin"), result.processes.series)
        if result.series is not None:
            row, column = result.series.windows
            dataset["series"] = (("cell_y", "cell_x", "latent", "bin"), result.series.data[...])
            dataset.coords["series_y"] = (("cell_y", "cell_x"), result.y[row], {"units": result.units})
            dataset.coords["series_x"] = (("cell_y", "cell_x"), result.x[column], {"units": result.units})
            dataset.coords["bin_frame"] = ("bin", result.series.frames)
        if groups := result.process.model_groups:
            dataset["groups"] = (("group", "y", "x"), np.stack([result.group(name) for name in groups]))
            members = [np.isin(result.latent, latents) for latents in groups.values()]
            dataset["group_latents"] = (("group", "latent"), np.stack(members))
            dataset.coords["group"] = list(groups)
        dataset["valid_frames"] = (("y", "x"), result.valid_frames)
        if result.reconstruction is not None:
            dataset["reconstruction"] = (("y", "x"), result.reconstruction)
        for axis in ("y", "x"):
            dataset[axis].attrs = {"units": result.units, "long_name": f"{axis} of the window's centre"}
        dataset.attrs = {name: getattr(result.process, name) for name in _ABOUT}
        return dataset


def trace(
    path: str | Path,
    at: Sequence[tuple[float, float]],
    movie: str | Path | None = None,
    model: str | Path | None = None,
) -> xr.Dataset:
    """The series of the windows nearest to ``at``, y and x in pixels of the frame, as `hrtemvae trace` encodes them.

    Variables ``z`` and ``running_mean`` [frame, place, latent], ``variance``, ``spearman``, ``mean``, ``p`` and
    ``time_correlated_variance`` [place, latent]; coordinates ``y`` and ``x`` [place] in pixels and, where it is known,
    ``time`` [frame] in s. ``window`` and, if the model has a decoder, ``reconstruction`` [place, shown, row, column],
    scaled to 0..1, show the first, middle and last frame, whose indices are ``shown``; NaN where not valid.
    ``movie`` and ``model`` say where these are if they were moved.
    Raises InputError as `hrtemvae trace` does.
    """
    with (
        result_file.open_result(Path(path)) as result,
        reopen(result, Path(movie) if movie else None, Path(model) if model else None) as again,
    ):
        places = [place_at(result, f"{float(y)!r},{float(x)!r}") for y, x in at]
        frames = again.movie.frame_indices
        shown = frames[[0, len(frames) // 2, -1]]
        traces = trace_places(again, places, frames=shown.tolist())
        series = ("frame", "place", "latent")
        dataset = xr.Dataset(
            {"z": (series, traces.z), "running_mean": (series, traces.running)},
            {"frame": frames, "latent": traces.latents, "shown": shown},
        )
        for name, values in traces.statistics.items():
            dataset[name] = (series[1:], values)
        images = ("place", "shown", "row", "column")
        dataset["window"] = (images, np.stack([view.windows for view in traces.views]))
        reconstructions = [view.reconstructions for view in traces.views if view.reconstructions is not None]
        if reconstructions:
            dataset["reconstruction"] = (images, np.stack(reconstructions))
        centres = np.array([position(result, place) for place in places])
        for i, axis in enumerate(("y", "x")):
            dataset.coords[axis] = ("place", centres[:, i], {"units": "pixel"})
        if again.movie.times_s is not None:
            dataset.coords["time"] = ("frame", again.movie.times_s, {"units": "s"})
        return dataset

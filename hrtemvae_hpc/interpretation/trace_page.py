"""The folder of a trace: one page, the tables and the HDF5 file."""

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import OwnFolder, writing
from hrtemvae_hpc.interpretation.places import position
from hrtemvae_hpc.interpretation.trace import Traces
from hrtemvae_hpc.interpretation.trace_figures import series, where, windows
from hrtemvae_hpc.interpretation.trace_file import write_hdf5, write_series, write_statistics
from hrtemvae_hpc.pages import inline, write_page

PAGE, HDF5, SERIES, STATISTICS = "trace.html", "trace.h5", "series.csv", "statistics.csv"
_DRAWN = 20  # places
_PLOTTED, _LISTED = 5, 10  # latents of each


def trace_folder(folder: Path, inputs: list[Path]) -> OwnFolder:
    """The folder that ``write_traces`` fills, not made yet.

    Raises InputError if it can't be ours, or one of the ``inputs`` lies in it.
    """
    own = OwnFolder(folder, "trace", [name.replace(".", r"\.") for name in (PAGE, HDF5, SERIES, STATISTICS)])
    own.check()
    for path in inputs:
        if folder.resolve() in path.resolve().parents:
            raise InputError(f"{path}: lies in the folder of its trace, {folder}; choose another folder with -o.")
    return own


def write_traces(traces: Traces, own: OwnFolder) -> Path:
    """Write ``traces`` into the folder ``own`` and return its page. Raises InputError if that fails."""
    own.take()
    own.clear()
    with writing(own.path):
        write_hdf5(traces, own.path / HDF5)
        write_series(traces, own.path / SERIES)
        write_statistics(traces, own.path / STATISTICS)
    result = traces.again.result
    drawn = [_draw(traces, i) for i in range(min(_DRAWN, len(traces.places)))]
    return write_page(
        Path(__file__).with_name("trace.html.j2"),
        own.path / PAGE,
        movie=traces.again.movie.path.name,
        result=str(result.path),
        process=result.process,
        command=shlex.join(sys.argv),
        frames=len(traces.z),
        agreement=traces.agreement,
        map=inline(where(traces, _DRAWN)),
        drawn=drawn,
        left=len(traces.places) - len(drawn),
    )


def _draw(traces: Traces, number: int) -> dict[str, Any]:
    """What the page shows of one place."""
    result, place, views = traces.again.result, traces.places[number], traces.views[number]
    statistics = {name: values[number] for name, values in traces.statistics.items()}
    order = [int(k) for k in np.argsort(-np.nan_to_num(statistics["time_correlated_variance"], nan=-1), kind="stable")]
    known = [k for k in order if np.isfinite(statistics["variance"][k])]
    y, x = position(result, place)
    size = result.process.pixel_size if result.units == "nm" else None
    alike = [] if views.correlations is None else [f"{value:.2f}" for value in views.correlations]
    return {
        "name": place.name,
        "y": y,
        "x": x,
        "nm": (y * size[0], x * size[1]) if size else None,
        "windows": len(place.windows),
        "valid": int(traces.valid_frames[number]),
        "series": inline(series(traces, number, known[:_PLOTTED])) if known else "",
        "pictures": inline(windows(traces, views)) if len(views.times) else "",
        "alike": ", ".join(alike),
        "without_noise": None if result.reconstruction is None else float(result.reconstruction[place.middle]),
        "rows": [
            {"latent": int(traces.latents[k])} | {name: float(values[k]) for name, values in statistics.items()}
            for k in known[:_LISTED]
        ],
    }

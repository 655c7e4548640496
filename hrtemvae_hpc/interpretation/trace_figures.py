"""Pictures of traces: where places lie, how their latents change, and the windows that the network saw."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hrtemvae_hpc.interpretation.places import Place
from hrtemvae_hpc.interpretation.trace import Traces
from hrtemvae_hpc.interpretation.views import Views
from hrtemvae_hpc.maps.pictures import thinned
from hrtemvae_hpc.pages import DPI, png
from hrtemvae_hpc.statistics.series import RUNNING

_SIDE = 5.2  # inches of the longer side of the map
_CELL, _LABEL, _TITLE = 1.2, 1.05, 0.26  # of a window, of the names beside and above windows
_COLOURS = [f"C{i}" for i in range(10)]


def where(traces: Traces, shown: int) -> bytes:
    """PNG: the first frame and the maps' sum, with the first ``shown`` places."""
    result = traces.again.result
    left, right, bottom, top = result.preview_extent
    across, down = right - left, bottom - top
    width, height = (max(_SIDE / 8, _SIDE * side / max(across, down)) for side in (across, down))
    figure = Figure((2 * width + 0.2, height + 0.3), DPI)
    size = figure.get_size_inches()
    pictures = (
        ("first frame", result.preview[0], result.preview_extent, "gray", (0.5, 99.5)),
        ("(rho x variance)^2, sum over all latents", result.together, result.extent, "inferno", (0, 99.5)),
    )
    for i, (title, values, extent, colours, shares) in enumerate(pictures):
        axes = figure.add_axes((i * (width + 0.2) / size[0], 0, width / size[0], height / size[1]))
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, shares) if finite.size else (0.0, 1.0)
        axes.set_facecolor("0.5")
        axes.imshow(thinned(values), extent=extent, aspect="auto", cmap=colours, vmin=low, vmax=high)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=9, loc="left", y=1)
        for number, place in enumerate(traces.places[:shown]):
            _mark(axes, traces, place, number)
    return png(figure)


def _mark(axes: Axes, traces: Traces, place: Place, number: int) -> None:
    """Outline what the windows of ``place`` cover, and number it."""
    result = traces.again.result
    size = result.process.pixel_size if result.units == "nm" and result.process.pixel_size else (1.0, 1.0)
    sides = [result.process.window / factor * s for factor, s in zip(result.process.resampling, size, strict=True)]
    y, x = result.y[place.windows[:, 0]], result.x[place.windows[:, 1]]
    corner = x.min() - sides[1] / 2, y.min() - sides[0] / 2
    colour = _COLOURS[number % len(_COLOURS)]
    around = np.ptp(x) + sides[1], np.ptp(y) + sides[0]
    axes.add_patch(Rectangle(corner, *around, fill=False, edgecolor=colour, linewidth=1.2))
    axes.plot(x.mean(), y.mean(), "+", color=colour, markersize=7)
    box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
    axes.annotate(
        str(number), corner, (3, -3), textcoords="offset points", color=colour, fontsize=8, va="top", bbox=box
    )


def series(traces: Traces, number: int, latents: list[int]) -> bytes:
    """PNG: z(t) of some ``latents`` (their places in ``traces.latents``) of one place, with means over ten frames."""
    movie = traces.again.movie
    x, label = (movie.frame_indices, "frame") if movie.times_s is None else (movie.times_s, "time / s")
    figure = Figure((5.0, 0.95 * len(latents) + 0.55), DPI)
    height = figure.get_size_inches()[1]
    for row, k in enumerate(latents):
        axes = figure.add_axes((0.13, 1 - (0.95 * (row + 1) - 0.02) / height, 0.85, 0.84 / height))
        axes.plot(x, traces.z[:, number, k], ".", color="0.6", markersize=3)
        axes.plot(x, traces.running[:, number, k], color="C0", linewidth=1.6)
        axes.set_ylabel(f"z{traces.latents[k]}", fontsize=9)
        axes.margins(x=0.02)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7, labelbottom=row == len(latents) - 1)
    axes.set_xlabel(f"{label}; line: mean over {RUNNING} frames", fontsize=9)
    return png(figure)


def windows(traces: Traces, views: Views) -> bytes:
    """PNG: a window at some times, one a column; below it the reconstruction, and what is left."""
    names = [str(int(frame)) for frame in traces.again.movie.frame_indices[views.times]]
    rows = [("window", views.windows, "gray", (0, 1))]
    if views.reconstructions is not None:
        rows += [
            ("reconstruction", views.reconstructions, "gray", (0, 1)),
            ("difference", views.windows - views.reconstructions, "RdBu_r", (-1, 1)),
        ]
    figure = Figure((_LABEL + len(names) * _CELL, _TITLE + len(rows) * _CELL), DPI)
    width, height = figure.get_size_inches()
    for i, (name, images, colours, (low, high)) in enumerate(rows):
        for j, image in enumerate(images):
            place = (_LABEL + j * _CELL) / width, 1 - (_TITLE + (i + 1) * _CELL) / height
            axes = figure.add_axes((*place, 0.95 * _CELL / width, 0.95 * _CELL / height))
            axes.set_facecolor("0.8")
            axes.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if i == 0:
                axes.set_title(f"frame {names[j]}", fontsize=8, y=1)
            if j == 0:
                axes.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return png(figure)

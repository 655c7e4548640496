"""Pictures of measured lattices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hrtemvae_hpc.interpretation.areas import GAINED, KEPT, LOST, change_of
from hrtemvae_hpc.interpretation.lattice_file import PHASES, units_of
from hrtemvae_hpc.interpretation.lattice_latents import LatentsOfBox
from hrtemvae_hpc.interpretation.measure_box import BoxLattices, View
from hrtemvae_hpc.pages import DPI, png

COLOURS = ("#00b7eb", "#ff8c1a", "#7ddb3c", "#ff4fa3", "#ffe24a", "#b18cff", "#ff5a4f", "#4affd0")
CHANGES = {LOST: ("lost", "#d7402b"), GAINED: ("gained", "#2f9e44"), KEPT: ("kept", "#8a97a6")}
_SIDE = 2.9  # inches of a picture
_SHOWN_PERIODS = 1.6  # highest frequency of a spectrum that is drawn, times that of the farthest reflection
_TITLES = {"rotation": "rotation / degrees", "xx": "strain xx / %", "yy": "strain yy / %", "xy": "strain xy / %"}


def spectra(box: BoxLattices) -> bytes:
    """PNG: the power spectrum of each shown frame, with the reflections of each lattice."""
    figure, rows = _grid(1, len(box.views), 1.0)
    farthest = max(float(np.nanmax(np.hypot(g[..., 0], g[..., 1]))) for g in box.reflections)
    most = min(0.5, _SHOWN_PERIODS * farthest)
    for axes, view in zip(rows[0], box.views, strict=True):
        power = np.log(np.maximum(view.power, 1e-12))
        near = _central(power, most)
        axes.imshow(near, cmap="gray", extent=(-most, most, most, -most), vmin=np.percentile(near, 30), vmax=near.max())
        for i, g in enumerate(box.reflections):
            for reflection in g[:, view.frame]:
                for sign in (1, -1):
                    y, x = sign * reflection
                    axes.plot(x, y, "o", mfc="none", mec=COLOURS[i], ms=9, mew=1.2)
        axes.set(xlim=(-most, most), ylim=(most, -most))
        axes.set_title(_when(box, view), fontsize=8)
    return png(figure)


def areas(box: BoxLattices) -> bytes:
    """PNG: each shown frame with the outlines of its lattices."""
    figure, rows = _grid(1, len(box.views), _aspect(box))
    for axes, view in zip(rows[0], box.views, strict=True):
        _draw_image(axes, view.image)
        for i in range(len(box.area)):
            if (view.labels == i).any():
                axes.contour(view.labels == i, [0.5], colors=COLOURS[i], linewidths=1.3)
        axes.set_title(_when(box, view), fontsize=8)
    return png(figure)


def changes(box: BoxLattices) -> bytes:
    """PNG: what became of each lattice between the first frame and the last, and of all together."""
    first, last = box.views[0], box.views[-1]
    lattices = range(len(box.area))
    pairs = [(f"lattice {i + 1}", first.labels == i, last.labels == i) for i in lattices]
    pairs.append(("any lattice", first.labels >= 0, last.labels >= 0))
    figure, rows = _grid(1, len(pairs), _aspect(box))
    colours = ListedColormap(["none", *(colour for _, colour in CHANGES.values())])
    for axes, (title, before, after) in zip(rows[0], pairs, strict=True):
        _draw_image(axes, last.image)
        axes.imshow(change_of(before, after), cmap=colours, vmin=0, vmax=3, alpha=0.6, interpolation="nearest")
        axes.set_title(title, fontsize=8)
    handles = [Patch(color=colour, label=name) for name, colour in CHANGES.values()]
    rows[0][0].legend(handles=handles, fontsize=7, loc="lower left")
    return png(figure)


def phases(box: BoxLattices) -> bytes | None:
    """PNG: rotation and strain within the lattices in the last shown frame, relative to the first; None if unknown."""
    view = next((v for v in reversed(box.views) if any(v.phases)), None)
    if view is None:
        return None
    figure, rows = _grid(1, len(PHASES), _aspect(box), bar=True)
    for axes, name in zip(rows[0], PHASES, strict=True):
        values = np.full(view.labels.shape, np.nan)
        for maps in view.phases:
            if maps is not None:
                own = getattr(maps, name)
                values = np.where(np.isfinite(own), own, values)
        values *= 1 if name == "rotation" else 100
        most = max(float(np.nanpercentile(abs(values), 95)), 1e-6)
        axes.set_facecolor("0.25")
        image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
        figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02).ax.tick_params(labelsize=7)
        axes.set_title(f"{_TITLES[name]}, {_when(box, view)}", fontsize=8)
    return png(figure)


def curves(box: BoxLattices) -> bytes:
    """PNG: misfit, angles, spacings, areas and contrast of the lattices over time."""
    size, units = units_of(box)
    movie, frames = box.box.movie, box.box.frames
    time = movie.frame_indices[frames] if movie.times_s is None else movie.times_s[frames]
    symbol = "px" if units == "pixel" else units
    turned = box.angles(size)
    spacing = box.spacings(size)
    panels: list[tuple[str, Sequence[np.ndarray] | np.ndarray]] = [
        ("rotation / degrees", [series - _first(series) for series in turned]),
        (f"spacings / {symbol}", spacing),
        (f"area / {symbol}²", box.area * size[0] * size[1]),
        ("contrast of fringes", box.contrast),
    ]
    if len(box.area) > 1:
        panels.insert(0, ("misfit to lattice 1 / degrees", [np.full(len(time), np.nan), *box.misfits(size)[0][1:]]))
    figure = Figure((8.5, 1.75 * len(panels)), DPI, layout="constrained")
    for axes, (title, series) in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
        for i, values in enumerate(series):
            for style, line in zip(("-", "--"), np.atleast_2d(values), strict=False):
                axes.plot(time, line, style, marker=".", color=COLOURS[i], ms=3, lw=1)
        axes.set_ylabel(title, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    axes.set_xlabel("frame" if movie.times_s is None else "time / s", fontsize=8)
    handles = [Patch(color=COLOURS[i], label=f"lattice {i + 1}") for i in range(len(box.area))]
    figure.legend(handles=handles, fontsize=7, ncols=4, loc="outside upper right")
    return png(figure)


def latents(box: BoxLattices, own: LatentsOfBox) -> bytes:
    """PNG: the leading latents of the window in the middle, and those of its simulation; the windows beside them."""
    figure = Figure((9.5, 1.5 * len(own.leading)), DPI, layout="constrained")
    cells = figure.subplots(len(own.leading), 2, squeeze=False, width_ratios=(3, 1))
    frames = box.box.movie.frame_indices[box.box.frames]
    for axes, k in zip(cells[:, 0], own.leading, strict=True):
        axes.plot(frames, own.z[:, k], ".-", color="tab:blue", ms=3, lw=0.8, label="movie")
        if own.simulated is not None:
            axes.plot(frames, own.simulated[:, k], ".-", color="tab:orange", ms=3, lw=0.8, label="simulation")
        axes.set_ylabel(f"z{k}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    cells[0, 0].legend(fontsize=7)
    cells[-1, 0].set_xlabel("frame", fontsize=8)
    for axes in cells[:, 1]:
        axes.set_axis_off()
    if own.images is not None:
        for axes, t in zip(cells[:, 1], (0, -1), strict=False):
            axes.imshow(own.images[t], cmap="gray")
            axes.set_title(f"simulated window, frame {frames[t]}", fontsize=7)
    return png(figure)


def _first(series: np.ndarray) -> float:
    known = series[np.isfinite(series)]
    return float(known[0]) if known.size else 0.0


def _aspect(box: BoxLattices) -> float:
    return box.box.area.height / box.box.area.width


def _grid(rows: int, columns: int, aspect: float, bar: bool = False) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """A figure of pictures of this ``aspect``, perhaps with room for colour bars."""
    width = _SIDE * (1.2 if bar else 1.0)
    figure = Figure((columns * width, rows * (_SIDE * min(aspect, 2.0) + 0.3)), DPI, layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    return figure, cells.tolist()


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    low, high = np.percentile(image, (0.5, 99.5))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high)


def _central(power: np.ndarray, most: float) -> np.ndarray:
    """The part of a power spectrum within ``most`` cycles per pixel along both axes."""
    rows, columns = (slice(round(n * (0.5 - most)), max(round(n * (0.5 + most)), 1)) for n in power.shape)
    return power[rows, columns]


def _when(box: BoxLattices, view: View) -> str:
    index = box.box.frames[view.frame]
    movie = box.box.movie
    frame = f"frame {movie.frame_indices[index]}"
    return frame if movie.times_s is None else f"{frame}, {movie.times_s[index]:.4g} s"

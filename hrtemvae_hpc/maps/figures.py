"""Pictures of a result: maps in nanometres with a scale bar, frames, and the curve of variances."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from hrtemvae_hpc.maps.result import TITLES, Result
from hrtemvae_hpc.pages import DPI, png
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES

_SYMBOL = {"nm": "nm", "pixel": "px"}
_COLOURS = {
    "time_correlated_variance": "inferno",
    "variance": "viridis",
    "spearman": "RdBu_r",
    "mean": "cividis",
    "valid_frames": "gray",
}
# Inches. Places are given, not found by matplotlib, which would take longer for that than to draw.
_PANEL, _EDGE, _ABOVE, _COLOURS_WIDTH = 3.1, 0.08, 0.32, 0.52


def _extent(y: np.ndarray, x: np.ndarray) -> tuple[float, float, float, float]:
    """Outer borders (left, right, bottom, top) of evenly spaced samples."""
    dy = (y[-1] - y[0]) / max(1, len(y) - 1) or 1.0
    dx = (x[-1] - x[0]) / max(1, len(x) - 1) or 1.0
    return x[0] - dx / 2, x[-1] + dx / 2, y[-1] + dy / 2, y[0] - dy / 2


def limits(name: str, values: np.ndarray) -> tuple[float, float]:
    """The range of values that the colours of a map of quantity ``name`` cover."""
    finite = values[np.isfinite(values)]
    if name == "spearman":
        return -1.0, 1.0
    if name == "valid_frames":
        return 0.0, float(values.max())
    if not finite.size:
        return 0.0, 1.0
    low = 0.0 if name in ("time_correlated_variance", "variance") else float(np.percentile(finite, 0.5))
    high = float(np.percentile(finite, 99.5))
    return low, high if high > low else low + 1e-12


def _scale_bar(axes: Axes, width: float, units: str) -> None:
    """A bar of a round length of about a fifth of ``width``."""
    power = 10 ** np.floor(np.log10(width / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width / 4)
    bar = AnchoredSizeBar(
        axes.transData,
        length,
        f"{length:g} {_SYMBOL[units]}",
        "lower left",
        pad=0.35,
        borderpad=0.4,
        sep=3,
        color="white",
        size_vertical=length / 12,
    )
    bar.patch.set(facecolor="black", alpha=0.55, linewidth=0)
    axes.add_artist(bar)
    axes.set(xticks=[], yticks=[])


def _draw_map(axes: Axes, result: Result, name: str, values: np.ndarray, title: str) -> None:
    low, high = limits(name, values)
    axes.set_facecolor("0.5")  # NaN shows as grey
    image = axes.imshow(values, extent=_extent(result.y, result.x), cmap=_COLOURS[name], vmin=low, vmax=high)
    frame = _extent(result.preview_y, result.preview_x)
    # As large as the frame, so that places can be compared.
    axes.set(xlim=frame[:2], ylim=frame[2:])
    axes.set_title(title, fontsize=9)
    _scale_bar(axes, frame[1] - frame[0], result.units)
    colours = axes.figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.04, 1)), ticks=MaxNLocator(5))
    colours.ax.tick_params(labelsize=7)
    colours.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    colours.ax.yaxis.get_offset_text().set_fontsize(7)


def _draw_frame(axes: Axes, result: Result, which: int) -> None:
    image = result.preview[which]
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0, 1)
    extent = _extent(result.preview_y, result.preview_x)
    axes.imshow(image, extent=extent, cmap="gray", vmin=low, vmax=high)
    _scale_bar(axes, extent[1] - extent[0], result.units)
    axes.set_title(f"{('first', 'last')[which]} frame ({result.preview_frames[which]})", fontsize=9)


def _panel(result: Result, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    left, right, bottom, top = _extent(result.preview_y, result.preview_x)
    high, across = _PANEL * (bottom - top) / (right - left), _PANEL + _COLOURS_WIDTH
    width, height = columns * across + _EDGE, rows * (high + _ABOVE) + _EDGE
    figure = Figure((width, height), DPI)
    panels = [
        [
            figure.add_axes(
                (
                    (_EDGE + column * across) / width,
                    1 - (row + 1) * (high + _ABOVE) / height,
                    _PANEL / width,
                    high / height,
                )
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]
    return figure, np.array(panels)


def leading_maps(result: Result, latents: Sequence[int]) -> bytes:
    """PNG: the first and last frame, all latents together, and the maps of ``latents``, two of them a row."""
    figure, grid = _panel(result, 1 + -(-len(latents) // 2), 4)
    _draw_frame(grid[0, 0], result, 0)
    _draw_frame(grid[0, 1], result, 1)
    together = result.together
    _draw_map(grid[0, 2], result, "time_correlated_variance", together, "sum of (rho x variance)^2 over all latents")
    _draw_map(grid[0, 3], result, "valid_frames", result.valid_frames, "frames that count")
    cells = iter(grid[1:].flat)
    for latent in latents:
        for name, title in (("time_correlated_variance", "(rho x variance)^2"), ("spearman", "Spearman's rho")):
            _draw_map(next(cells), result, name, result.maps(name, latent), f"z{latent}: {title}")
    for empty in cells:
        empty.set_axis_off()
    return png(figure)


def single_map(result: Result, name: str, latent: int, path: Path) -> None:
    """Write the map of one quantity and latent as a PNG."""
    figure, grid = _panel(result, 1, 1)
    _draw_map(grid[0, 0], result, name, result.maps(name, latent), f"z{latent}: {TITLES[name]}")
    figure.savefig(path)


def frame_and_map(result: Result, latent: int) -> bytes:
    """PNG: the last frame beside the time-correlated variance of one latent."""
    figure, grid = _panel(result, 1, 2)
    _draw_frame(grid[0, 0], result, 1)
    values = result.maps("time_correlated_variance", latent)
    _draw_map(grid[0, 1], result, "time_correlated_variance", values, f"z{latent}: (rho x variance)^2")
    return png(figure)


def variance_curve(result: Result) -> bytes:
    """PNG: each latent's variance over time, mean and 99th percentile over the windows, in the model's order."""
    enough = result.valid_frames >= MINIMUM_FRAMES
    figure = Figure((7.5, 2.8), DPI)
    axes = figure.add_axes((0.11, 0.17, 0.88, 0.8))
    if enough.any():
        variances = (result.maps("variance", i)[enough] for i in result.latent)
        high, mean = zip(*((np.percentile(v, 99), v.mean()) for v in variances), strict=True)
        axes.plot(result.latent, high, ".-", label="99th percentile of the windows")
        axes.plot(result.latent, mean, ".-", label="mean over the windows")
        axes.set_yscale("log" if max(mean) > 0 else "linear")  # a movie may stand still
        axes.legend(fontsize=8)
    axes.set_xlabel("latent variable (last: most variance over the training set)", fontsize=9)
    axes.set_ylabel("variance over time", fontsize=9)
    axes.grid(alpha=0.3)
    return png(figure)

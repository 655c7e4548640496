"""Pictures of a result: maps with a scale bar, frames, and the curve of variances.

Their size in pixels is bounded, whatever the shape of the movie's frame.
"""

from collections.abc import Sequence

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
# Inches. Positions are given, not found by matplotlib, which would take longer for that than for drawing.
_PANEL, _EDGE, _ABOVE, _COLOURS_WIDTH = 3.1, 0.08, 0.32, 0.6
_NARROWEST = _PANEL / 10  # a frame that is narrower is stretched
_BAR = 1.0, 0.6  # width and height of a panel that a scale bar fits in
_CAPTION = 0.2
_MOST_SAMPLES = 1024  # drawn along a side


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


class _Panels:
    """A figure of equal panels, each as large as a frame of ``result`` is drawn."""

    def __init__(self, result: Result, rows: int, columns: int) -> None:
        self.result = result
        left, right, bottom, top = result.preview_extent
        across, down = right - left, bottom - top
        self.width, self.height = (max(_NARROWEST, _PANEL * side / max(across, down)) for side in (across, down))
        self.has_bar = self.width >= _BAR[0] and self.height >= _BAR[1]
        below = _EDGE if self.has_bar else _EDGE + _CAPTION
        cell = _PANEL + _COLOURS_WIDTH, self.height + _ABOVE
        width, height = columns * cell[0] + _EDGE, rows * cell[1] + below
        self.figure = Figure((width, height), DPI)
        self.axes = [
            self.figure.add_axes(
                (
                    (_EDGE + column * cell[0]) / width,
                    1 - (row + 1) * cell[1] / height,
                    self.width / width,
                    self.height / height,
                )
            )
            for row in range(rows)
            for column in range(columns)
        ]
        for axes in self.axes:
            axes.xaxis.set_visible(False)
            axes.yaxis.set_visible(False)
        if not self.has_bar:
            unit, stretch = _SYMBOL[result.units], (self.width / across) / (self.height / down)
            caption = f"{_short(across)} {unit} wide, {_short(down)} {unit} high"
            if abs(np.log(stretch)) > 0.01:
                caption += f"; drawn {_short(max(stretch, 1 / stretch))} times too {'wide' if stretch > 1 else 'high'}"
            self.figure.text(_EDGE / width, _EDGE / height, caption, fontsize=8)

    def draw_map(self, axes: Axes, name: str, values: np.ndarray, title: str) -> None:
        low, high = limits(name, values)
        axes.set_facecolor("0.5")  # NaN shows as grey
        extent = self.result.extent
        image = axes.imshow(thinned(values), extent=extent, aspect="auto", cmap=_COLOURS[name], vmin=low, vmax=high)
        self._finish(axes, title)
        place = 1 + 0.06 / self.width, 0, 0.12 / self.width, 1
        ticks = MaxNLocator(max(1, min(5, round(self.height / 0.4))))
        colours = self.figure.colorbar(image, cax=axes.inset_axes(place), ticks=ticks)
        colours.ax.tick_params(labelsize=7)
        colours.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
        colours.ax.yaxis.get_offset_text().set_fontsize(7)

    def draw_frame(self, axes: Axes, which: int) -> None:
        """The first frame (0) or the last (1)."""
        image = self.result.preview[which]
        finite = image[np.isfinite(image)]
        low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0, 1)
        extent = self.result.preview_extent
        axes.imshow(thinned(image), extent=extent, aspect="auto", cmap="gray", vmin=low, vmax=high)
        self._finish(axes, f"{('first', 'last')[which]} frame ({self.result.preview_frames[which]})")

    def _finish(self, axes: Axes, title: str) -> None:
        left, right, bottom, top = self.result.preview_extent
        # As large as the frame, so that places can be compared.
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.set_title(title, fontsize=9, loc="left", y=1)
        if self.has_bar:
            axes.add_artist(_scale_bar(axes, right - left, self.result.units))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _scale_bar(axes: Axes, width: float, units: str) -> AnchoredSizeBar:
    """A bar of a round length of about a fifth of ``width``."""
    power = 10 ** np.floor(np.log10(width / 4))
    length = max((step * power for step in (1, 2, 5) if step * power <= width / 4), default=power)
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
    return bar


def thinned(values: np.ndarray) -> np.ndarray:
    """``values`` [rows, columns] with at most 1024 per side: means of finite values, NaN where there are none."""
    steps = [-(-n // _MOST_SAMPLES) for n in values.shape]
    if max(steps) == 1:
        return values
    known = np.isfinite(values)
    total, count = np.where(known, values, 0), known.astype(np.int32)
    for axis, step in enumerate(steps):
        starts = np.arange(0, values.shape[axis], step)
        total, count = (np.add.reduceat(a, starts, axis, a.dtype) for a in (total, count))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def leading_maps(result: Result, latents: Sequence[int]) -> bytes:
    """PNG: the first and last frame, all latents together, and the maps of ``latents``, two per row."""
    panels = _Panels(result, 1 + -(-len(latents) // 2), 4)
    cells = iter(panels.axes)
    panels.draw_frame(next(cells), 0)
    panels.draw_frame(next(cells), 1)
    together = "(rho x variance)^2, sum over all latents"
    panels.draw_map(next(cells), "time_correlated_variance", result.together, together)
    panels.draw_map(next(cells), "valid_frames", result.valid_frames, "valid frames")
    for latent in latents:
        for name, title in (("time_correlated_variance", "(rho x variance)^2"), ("spearman", "Spearman's rho")):
            panels.draw_map(next(cells), name, result.maps(name, latent), f"z{latent}: {title}")
    for empty in cells:
        empty.set_axis_off()
    return png(panels.figure)


def single_map(result: Result, name: str, latent: int) -> bytes:
    """PNG: the map of one quantity and latent."""
    panels = _Panels(result, 1, 1)
    panels.draw_map(panels.axes[0], name, result.maps(name, latent), f"z{latent}: {TITLES[name]}")
    return png(panels.figure)


def frame_and_map(result: Result, latent: int) -> bytes:
    """PNG: the last frame beside the time-correlated variance of one latent."""
    panels = _Panels(result, 1, 2)
    panels.draw_frame(panels.axes[0], 1)
    values = result.maps("time_correlated_variance", latent)
    panels.draw_map(panels.axes[1], "time_correlated_variance", values, f"z{latent}: (rho x variance)^2")
    return png(panels.figure)


def variance_curve(result: Result) -> bytes:
    """PNG: each latent's variance over time, mean and 99th percentile over the windows, in the model's order."""
    enough = result.valid_frames >= MINIMUM_FRAMES
    figure = Figure((7.5, 2.8), DPI)
    axes = figure.add_axes((0.11, 0.17, 0.88, 0.8))
    if enough.any():
        variances = (result.maps("variance", i)[enough] for i in result.latent)
        high, mean = zip(*((np.percentile(v, 99), v.mean(dtype=float)) for v in variances), strict=True)
        axes.plot(result.latent, high, ".-", label="99th percentile of the windows")
        axes.plot(result.latent, mean, ".-", label="mean over the windows")
        axes.set_yscale("log" if max(mean) > 0 else "linear")  # a movie may stand still
        axes.legend(fontsize=8)
    axes.set_xlabel("latent variable (last: most variance over the training set)", fontsize=9)
    axes.set_ylabel("variance over time", fontsize=9)
    axes.grid(alpha=0.3)
    return png(figure)

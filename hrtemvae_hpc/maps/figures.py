"""Pictures of a result for slides and papers: a map with a scale bar, and the curves of its frames.

Their size in pixels is bounded, whatever the shape of the movie's frame.
"""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from hrtemvae_hpc.maps.drift_group import FrameCurves
from hrtemvae_hpc.maps.panel import Panel, panel_of
from hrtemvae_hpc.maps.pictures import COLOURS, limits, thinned
from hrtemvae_hpc.maps.result import TITLES, Result
from hrtemvae_hpc.pages import DPI, png

# Inches. Positions are given, not found by matplotlib, which would take longer for that than for drawing.
_SIDE, _EDGE, _ABOVE, _COLOURS_WIDTH = 3.1, 0.08, 0.32, 0.6
_CAPTION = 0.2


class _MapFigure:
    """A figure of one map, as large as the frame of ``result``."""

    def __init__(self, result: Result) -> None:
        self.result, self.panel = result, panel_of(result)
        self.width, self.height = _SIDE * min(1, self.panel.aspect), _SIDE * min(1, 1 / self.panel.aspect)
        below = _EDGE if self.panel.bar else _EDGE + _CAPTION
        width, height = _SIDE + _COLOURS_WIDTH + _EDGE, self.height + _ABOVE + below
        self.figure = Figure((width, height), DPI)
        self.axes = self.figure.add_axes((_EDGE / width, below / height, self.width / width, self.height / height))
        self.axes.xaxis.set_visible(False)
        self.axes.yaxis.set_visible(False)
        self.figure.text(_EDGE / width, _EDGE / height, self.panel.note, fontsize=8)

    def draw(self, name: str, values: np.ndarray, title: str) -> AxesImage:
        low, high = limits(name, values)
        self.axes.set_facecolor("0.5")  # NaN shows as grey
        extent = self.result.extent
        image = self.axes.imshow(thinned(values), extent=extent, aspect="auto", cmap=COLOURS[name], vmin=low, vmax=high)
        left, right, bottom, top = self.result.preview_extent
        # As large as the frame, so that places can be compared.
        self.axes.set(xlim=(left, right), ylim=(bottom, top))
        self.set_title(title)
        if self.panel.bar:
            self.axes.add_artist(_scale_bar(self.axes, self.panel))
        place = 1 + 0.06 / self.width, 0, 0.12 / self.width, 1
        ticks = MaxNLocator(max(1, min(5, round(self.height / 0.4))))
        colours = self.figure.colorbar(image, cax=self.axes.inset_axes(place), ticks=ticks)
        colours.ax.tick_params(labelsize=7)
        colours.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
        colours.ax.yaxis.get_offset_text().set_fontsize(7)
        return image

    def set_title(self, title: str) -> None:
        self.axes.set_title(title, fontsize=9, loc="left", y=1)


def _scale_bar(axes: Axes, panel: Panel) -> AnchoredSizeBar:
    bar = AnchoredSizeBar(
        axes.transData,
        panel.bar,
        f"{panel.bar:g} {panel.units}",
        "lower left",
        pad=0.35,
        borderpad=0.4,
        sep=3,
        color="white",
        size_vertical=panel.bar / 12,
    )
    bar.patch.set(facecolor="black", alpha=0.55, linewidth=0)
    return bar


def single_maps(result: Result, name: str) -> Iterator[bytes]:
    """PNG: the map of quantity ``name`` of each latent in turn; they share a figure, which takes long to set up."""
    figure, image = _MapFigure(result), None
    for latent in result.latent:
        values, title = result.maps(name, latent), f"z{latent}: {TITLES[name]}"
        if image is None:
            image = figure.draw(name, values, title)
        else:
            image.set_data(thinned(values))
            with image.norm.callbacks.blocked():  # the colour bar would correct limits of which only one is new
                image.set_clim(*limits(name, values))
            image.changed()
            figure.set_title(title)
        yield png(figure.figure)


def frame_curves(curves: FrameCurves) -> bytes:
    """PNG: drift and what was followed of it, mean and contrast, and focus, of each frame."""
    x, label = (curves.frame, "frame") if curves.time is None else (curves.time, "time / s")
    figure = Figure((7.5, 4.6), DPI)
    shown = np.where(curves.blank, np.nan, 1.0)
    panels = [figure.add_axes((0.11, bottom, 0.78, 0.26)) for bottom in (0.71, 0.41, 0.11)]
    for values, applied, name, colour in (
        (curves.dy, curves.applied_dy, "down", "tab:blue"),
        (curves.dx, curves.applied_dx, "right", "tab:orange"),
    ):
        panels[0].plot(x, values * shown, ".-", color=colour, label=name, markersize=3)
        if applied.any():
            panels[0].step(x, applied, where="mid", color=colour, alpha=0.5, linewidth=0.8)
    panels[0].set_ylabel("drift / px", fontsize=9)
    panels[0].legend(fontsize=8)
    panels[1].plot(x, curves.mean * shown, ".-", color="tab:green", markersize=3)
    panels[1].set_ylabel("mean counts", fontsize=9, color="tab:green")
    contrast = panels[1].twinx()
    contrast.plot(x, curves.contrast * shown, ".-", color="tab:purple", markersize=3)
    contrast.set_ylabel("contrast", fontsize=9, color="tab:purple")
    panels[2].plot(x, curves.focus * shown, ".-", color="tab:red", markersize=3)
    panels[2].set_ylabel("focus measure", fontsize=9)
    panels[2].set_xlabel(label, fontsize=9)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.set_xlim(x[0], x[-1])
        panel.tick_params(labelsize=8, labelbottom=panel is panels[2])
    return png(figure)

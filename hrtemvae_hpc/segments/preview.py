"""The page of a file of segments: what was kept, what was dropped, and by what threshold."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hrtemvae_hpc.pages import DPI, inline, png, write_page
from hrtemvae_hpc.segments.cut import Cut, CutOptions

_SHOWN = 48
_IN_ROW = 12


def write_preview(output: Path, cuts: Iterable[tuple[str, Cut]], options: CutOptions, left_out: list[str]) -> Path:
    """Draw the page of ``output`` beside it, from the name and segments of each file."""
    rows, kept, dropped, strengths, dropped_strengths, periods = [], [], [], [], [], []
    random = np.random.default_rng(0)
    for name, cut in cuts:
        own, used = cut.pixel_size
        rows.append(
            (name, len(cut.segments), cut.looked_at, own, used, np.median(cut.period) if len(cut.period) else np.nan)
        )
        chosen = random.permutation(len(cut.segments))[:8]
        kept += list(zip(cut.segments[chosen], cut.strength[chosen], strict=True))
        dropped += list(zip(cut.dropped, cut.dropped_strength, strict=True))
        strengths.append(cut.strength)
        dropped_strengths.append(cut.dropped_strength)
        periods.append(cut.period)
    return write_page(
        Path(__file__).with_name("preview.html.j2"),
        output.with_suffix(".html"),
        name=output.name,
        options=options,
        rows=rows,
        left_out=left_out,
        count=sum(row[1] for row in rows),
        histograms=inline(_histograms(strengths, dropped_strengths, periods, options.threshold)),
        kept=_gallery([kept[i] for i in random.permutation(len(kept))[:_SHOWN]]),
        dropped=_gallery([dropped[i] for i in random.permutation(len(dropped))[:_SHOWN]]),
    )


def _gallery(examples: list[tuple[np.ndarray, float]]) -> str:
    if not examples:
        return ""
    rows = -(-len(examples) // _IN_ROW)
    figure = Figure((10, 0.98 * rows), DPI, layout="constrained")
    cells = figure.subplots(rows, _IN_ROW, squeeze=False).flat
    for axes, (segment, strength) in zip(cells, sorted(examples, key=lambda e: -e[1]), strict=False):
        axes.imshow(segment, cmap="gray")
        axes.set_title(f"{strength:.0f}", fontsize=6, pad=1.5)
    for axes in figure.axes:
        axes.set_axis_off()
    return inline(png(figure))


def _histograms(
    kept: list[np.ndarray], dropped: list[np.ndarray], periods: list[np.ndarray], threshold: float
) -> bytes:
    figure = Figure((10, 2.6), DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    strong, weak = np.concatenate(kept), np.concatenate(dropped)
    both = np.concatenate([strong, weak]).clip(0.1)
    bins = np.geomspace(both.min(), both.max() * 1.01, 50)
    left.hist(strong.clip(0.1), bins, label="kept")
    left.hist(weak.clip(0.1), bins, label="dropped (examples)")
    left.axvline(threshold, color="black", linestyle=":", label="threshold")
    left.set(xscale="log", xlabel="fringe strength", ylabel="segments")
    left.legend(fontsize=8)
    right.hist(np.concatenate(periods), 60)
    right.set(xlabel="period of the strongest fringes, pixels", ylabel="segments")
    return png(figure)

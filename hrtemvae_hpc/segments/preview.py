"""The page of a file of segments: what was kept, what was dropped, and by what threshold."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hrtemvae_hpc.pages import DPI, grey_png, inline, png, write_page
from hrtemvae_hpc.segments.cut import Cut
from hrtemvae_hpc.segments.cut_options import CutOptions

_SHOWN = 48
_OF_A_FILE = 8
_IN_MEMORY = 8 * _SHOWN  # examples


class Preview:
    """Gathers what the page shows while segments are written."""

    def __init__(self, options: CutOptions, left_out: list[str]) -> None:
        self._options = options
        self._left_out = left_out
        self._random = np.random.default_rng(0)
        self._rows: list[tuple[str, int, int, float, float, float]] = []
        self._kept: list[tuple[np.ndarray, float]] = []
        self._dropped: list[tuple[np.ndarray, float]] = []
        self._strengths: list[np.ndarray] = []
        self._dropped_strengths: list[np.ndarray] = []
        self._periods: list[np.ndarray] = []

    def add(self, name: str, cut: Cut, kept: int) -> None:
        """Add the segments of one file, of which ``kept`` stay."""
        original, used = cut.pixel_size
        period = float(np.median(cut.period)) if len(cut.period) else np.nan
        self._rows.append((name, kept, cut.looked_at, original, used, period))
        chosen = self._random.permutation(len(cut.segments))[:_OF_A_FILE]
        self._kept = self._sample(
            [*self._kept, *zip(cut.segments[chosen], cut.strength[chosen], strict=True)], _IN_MEMORY
        )
        self._dropped = self._sample([*self._dropped, *zip(cut.dropped, cut.dropped_strength, strict=True)], _IN_MEMORY)
        self._strengths.append(cut.strength)
        self._dropped_strengths.append(cut.dropped_strength)
        self._periods.append(cut.period)

    def _sample(self, examples: list[tuple[np.ndarray, float]], most: int) -> list[tuple[np.ndarray, float]]:
        return [examples[i] for i in self._random.permutation(len(examples))[:most]]

    def write(self, output: Path) -> Path:
        """Draw the page of ``output`` beside it, which is returned."""
        return write_page(
            Path(__file__).with_name("preview.html.j2"),
            output.with_suffix(".html"),
            name=output.name,
            options=self._options,
            rows=self._rows,
            left_out=self._left_out,
            count=sum(row[1] for row in self._rows),
            histograms=inline(
                _histograms(self._strengths, self._dropped_strengths, self._periods, self._options.threshold)
            ),
            kept=_gallery(self._sample(self._kept, _SHOWN)),
            dropped=_gallery(self._sample(self._dropped, _SHOWN)),
        )


def _gallery(examples: list[tuple[np.ndarray, float]]) -> list[tuple[str, float]]:
    """Pictures of segments, each from its darkest to its brightest pixel, with their fringe strength."""
    ordered = sorted(examples, key=lambda example: -example[1])
    return [(inline(grey_png(_stretched(segment))), strength) for segment, strength in ordered]


def _stretched(segment: np.ndarray) -> np.ndarray:
    low, high = float(segment.min()), float(segment.max())
    return (segment.astype(np.float32) - low) / ((high - low) or 1)


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

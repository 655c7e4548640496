"""Where a map lies over the frame, and the scale bar: the same in every panel, so that places can be compared."""

import math
from dataclasses import dataclass

from hrtemvae_hpc.maps.pictures import MOST_SAMPLES, binning_of
from hrtemvae_hpc.maps.result import Result

SYMBOLS = {"nm": "nm", "pixel": "px"}
_NARROWEST = 0.1  # width over height, or height over width; a frame that is narrower is stretched
_BAR = 0.32, 0.19  # width and height, of the longer side, that a scale bar fits in


@dataclass(frozen=True)
class Panel:
    """A frame as it is drawn. Lengths in ``units`` of the result."""

    units: str
    aspect: float  # width over height, as drawn
    frame: tuple[float, float, float, float]  # left, top, width, height
    maps: tuple[float, float, float, float]
    bar: float  # length of the scale bar, 0 where none fits
    note: str  # instead of a scale bar

    @property
    def map_style(self) -> str:
        """CSS that places a map within the panel."""
        left, top, width, height = self.frame
        places = {
            "left": (self.maps[0] - left) / width,
            "top": (self.maps[1] - top) / height,
            "width": self.maps[2] / width,
            "height": self.maps[3] / height,
        }
        return ";".join(f"{name}:{100 * share:.4f}%" for name, share in places.items())

    @property
    def bar_percent(self) -> float:
        """The length of the scale bar in percent of the panel's width."""
        return 100 * self.bar / self.frame[2]


def panel_of(result: Result, most: int = MOST_SAMPLES) -> Panel:
    """The panel that all maps and frames of ``result`` are drawn in, with at most ``most`` samples per side."""
    left, right, bottom, top = result.preview_extent
    across, down = right - left, bottom - top
    true = across / down
    aspect = min(max(true, _NARROWEST), 1 / _NARROWEST)
    fits = min(1.0, aspect) >= _BAR[0] and min(1.0, 1 / aspect) >= _BAR[1]
    symbol, note = SYMBOLS[result.units], ""
    if not fits:
        note = f"{_short(across)} {symbol} wide, {_short(down)} {symbol} high"
        stretch = aspect / true
        if abs(math.log(stretch)) > 0.01:
            note += f"; drawn {_short(max(stretch, 1 / stretch))} times too {'wide' if stretch > 1 else 'high'}"
    map_left, map_right, map_bottom, map_top = result.extent
    # The last rows and columns of a map that is drawn with fewer of them may reach beyond its windows.
    shape = result.valid_frames.shape
    rows, columns = (-(-n // b) * b / n for n, b in zip(shape, binning_of(shape, most), strict=True))
    return Panel(
        symbol,
        aspect,
        (left, top, across, down),
        (map_left, map_top, (map_right - map_left) * columns, (map_bottom - map_top) * rows),
        _bar(across) if fits else 0.0,
        note,
    )


def _bar(width: float) -> float:
    """A round length of about a fifth of ``width``."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width / 4)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

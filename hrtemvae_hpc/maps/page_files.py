"""The styles and scripts of pages that show maps, which are written into them."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "page"
_LIBRARY = ("uplot/LICENSE", "uplot/uPlot.iife.min.js")
_SCRIPTS = (
    "decode.js",
    "scales.js",
    "view.js",
    "viewer.js",
    "figures.js",
    "places.js",
    "curves.js",
    "series.js",
    "windows.js",
    "saving.js",
    "controls.js",
    "recording.js",
)


@cache
def styles(*names: str) -> str:
    """The style sheets ``names``, one after the other."""
    return "\n".join(_read(name) for name in names)


@cache
def scripts() -> list[str]:
    """The library of the curves, and the page's own scripts, which share their names only with each other."""
    licence, library = (_read(name) for name in _LIBRARY)
    own = "\n".join(_read(name) for name in _SCRIPTS)
    return [f"/*\n{licence}*/\n{library}", f'(() => {{\n"use strict";\n{own}}})();']


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")

"""The report of a result: one HTML page that needs nothing else, and on request PNG and TIFF files of all maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.maps.figures import leading_maps, single_map, variance_curve
from hrtemvae_hpc.maps.result import TITLES, Result, open_result
from hrtemvae_hpc.maps.verdict import find_verdicts
from hrtemvae_hpc.pages import inline, write_page
from hrtemvae_hpc.statistics.over_time import MAPS

_LEADING = 6
_LISTED = 16


@dataclass(frozen=True)
class Shown:
    """How much a latent shows in this movie, and where most."""

    latent: int
    source: int
    score: float  # 99th percentile of its time-correlated variance over the windows
    variance: float
    rho: float
    y: float
    x: float


def rank_latents(result: Result) -> list[Shown]:
    """The latents by the 99th percentile of their time-correlated variance, most first."""
    shown = []
    source = result.file["entry/time_correlated_variance/latent_source_index"][...]
    for latent in range(len(result.latent)):
        product = result.maps("time_correlated_variance", latent)
        if not np.isfinite(product).any():
            continue
        row, column = np.unravel_index(np.nanargmax(product), product.shape)
        shown.append(
            Shown(
                latent,
                int(source[latent]),
                float(np.nanpercentile(product, 99)),
                float(result.maps("variance", latent)[row, column]),
                float(result.maps("spearman", latent)[row, column]),
                float(result.y[row]),
                float(result.x[column]),
            )
        )
    return sorted(shown, key=lambda s: s.score, reverse=True)


def write_result_page(path: Path, page: Path) -> Path:
    """Draw the result file ``path`` as the HTML page ``page``, which is returned.

    Raises InputError where ``path`` is no result file or ``page`` can't be written.
    """
    with open_result(path) as result:
        return _write_page(result, page)


def write_report(path: Path, folder: Path, tiff: bool) -> Path:
    """Draw ``path`` into ``folder``: report.html, a PNG of each map and, if ``tiff``, float32 stacks.

    Returns the page. Raises InputError where ``path`` is no result file or ``folder`` can't be written.
    """
    with open_result(path) as result:
        page = folder / "report.html"
        try:
            folder.mkdir(exist_ok=True)
            _write_page(result, page)
            for name in MAPS:
                (folder / name).mkdir(exist_ok=True)
                for latent in range(len(result.latent)):
                    single_map(result, name, latent, folder / name / f"z{latent:02d}.png")
                if tiff:
                    _write_tiff(result, name, folder / f"{name}.tif")
        except OSError as error:
            raise InputError(f"{folder}: can't be written ({error.strerror}); choose another with -o.") from error
    return page


def _write_page(result: Result, page: Path) -> Path:
    shown = rank_latents(result)
    leading = [s.latent for s in shown[:_LEADING]]
    return write_page(
        Path(__file__).with_name("report.html.j2"),
        page,
        result=result,
        process=result.process,
        shown=shown[:_LISTED],
        units=result.units,
        invalid=int((result.valid_frames < len(result.process["frames"])).sum()),
        maps=inline(leading_maps(result, leading)) if leading else "",
        verdicts=find_verdicts(result),
        curve=inline(variance_curve(result)),
    )


def _write_tiff(result: Result, name: str, path: Path) -> None:
    """One slice a latent, calibrated for ImageJ."""
    stack = np.stack([result.maps(name, i) for i in range(len(result.latent))])
    step, sizes = result.process["step"], result.process.get("pixel_size", (1.0, 1.0))
    dy, dx = (step * size / factor for size, factor in zip(sizes, result.process["resampling"], strict=True))
    tifffile.imwrite(
        path,
        stack.astype(np.float32),
        imagej=True,
        resolution=(1 / dx, 1 / dy),
        metadata={
            "axes": "ZYX",
            "unit": result.units,
            "Labels": [f"z{i} {TITLES[name]}" for i in range(len(stack))],
        },
    )

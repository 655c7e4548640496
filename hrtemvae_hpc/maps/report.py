"""The report of a result: one HTML page that needs nothing else, and on request PNG and TIFF files of all maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from hrtemvae_hpc.errors import HrtemvaeError, InputError, printable
from hrtemvae_hpc.files import OwnFolder, replacing, writing
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.page_data import BUDGET, frame_pictures, in_figures, map_pictures, viewer_data
from hrtemvae_hpc.maps.page_files import scripts, styles
from hrtemvae_hpc.maps.page_series import SERIES_BUDGET
from hrtemvae_hpc.maps.page_windows import WINDOWS_BUDGET
from hrtemvae_hpc.maps.panel import panel_of
from hrtemvae_hpc.maps.pictures import MOST_SAMPLES, binning_of
from hrtemvae_hpc.maps.process_cards import process_cards
from hrtemvae_hpc.maps.result import TITLES, Result, open_result
from hrtemvae_hpc.maps.verdict import find_verdicts
from hrtemvae_hpc.pages import write_page
from hrtemvae_hpc.statistics.chance import few_frames_warning
from hrtemvae_hpc.statistics.over_time import MAPS

_LISTED = 16
_RHO_WITH = TITLES["spearman"].removesuffix("time")
_PAGE = "report.html"
_NAMES = (r"report\.html", rf"({'|'.join(MAPS)})\.tif", rf"({'|'.join(MAPS)})/z\d+\.png")  # all that is in a report


@dataclass(frozen=True)
class Shown:
    """How much a latent changes in this movie, and where most."""

    latent: int
    source: int
    score: float  # 99th percentile of its time-correlated variance over the windows
    variance: float
    rho: float
    y: float
    x: float


@contextmanager
def opened_to_draw(path: Path) -> Iterator[Result]:
    """The result file ``path``; any failure to read or draw it ends as InputError."""
    try:
        with open_result(path) as result:
            yield result
    except HrtemvaeError:
        raise
    except Exception as error:
        what = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
        raise InputError(f"{path}: can't be drawn ({what}); `hrtemvae verify` says whether it is intact.") from error


def rank_latents(result: Result) -> list[Shown]:
    """The latents by the 99th percentile of their time-correlated variance, most first.

    Windows that lack half of the frames don't count.
    """
    shown, enough = [], enough_frames(result.valid_frames)
    for latent in result.latent:
        product = result.maps("time_correlated_variance", latent)
        finite = np.isfinite(product) & enough
        if not finite.any():
            continue
        row, column = np.unravel_index(np.argmax(np.where(finite, product, -np.inf)), product.shape)
        shown.append(
            Shown(
                int(latent),
                int(result.latent_source_index[latent]),
                float(np.percentile(product[finite], 99)),
                float(result.maps("variance", latent)[row, column]),
                float(result.maps("spearman", latent)[row, column]),
                float(result.y[row]),
                float(result.x[column]),
            )
        )
    return sorted(shown, key=lambda s: s.score, reverse=True)


def write_result_page(path: Path, page: Path, folder: Path | None = None) -> Path:
    """Draw the result file ``path`` as the HTML page ``page``, which is returned. It is written in ``folder`` first.

    Raises InputError if ``path`` is not an intact result file or can't be drawn, or ``page`` can't be written.
    """
    with opened_to_draw(path) as result:
        return _write_page(result, page, folder)


def write_report(path: Path, folder: Path, tiff: bool) -> Path:
    """Draw ``path`` into ``folder``: report.html, a PNG of each map and, if ``tiff``, float32 stacks.

    Returns the page. Raises InputError if ``path`` is not an intact result file or can't be drawn, or ``folder``
    can't be written or holds other files.
    """
    from hrtemvae_hpc.maps.figures import single_maps  # loads matplotlib, which a page does without

    if folder.resolve() in path.resolve().parents:
        raise InputError(f"{path}: lies in the folder of its report, {folder}; choose another folder with -o.")
    with opened_to_draw(path) as result:
        report_folder = OwnFolder(folder, "report", _NAMES)
        report_folder.take()
        report_folder.clear()
        with writing(folder):
            for name in MAPS:
                (folder / name).mkdir(exist_ok=True)
                for latent, picture in zip(result.latent, single_maps(result, name), strict=True):
                    with replacing(folder / name / f"z{latent:02d}.png") as aside:
                        aside.write_bytes(picture)
                if tiff:
                    with replacing(folder / f"{name}.tif") as aside:
                        _write_tiff(result, name, aside)
        return _write_page(result, folder / _PAGE)


def _write_page(result: Result, page: Path, folder: Path | None = None) -> Path:
    shown = rank_latents(result)
    ranked = [s.latent for s in shown]
    panel, frames = panel_of(result), frame_pictures(result)
    processes = process_cards(result, MOST_SAMPLES)
    taken = SERIES_BUDGET + WINDOWS_BUDGET + sum(len(f.picture) for f in (frames[0], *frames))
    taken += sum(len(card.picture) for card in processes)
    pictures = map_pictures(result, ranked, BUDGET - taken)
    embedded = {p.latent for p in pictures}
    dose, rate = _dose(result)
    return write_page(
        Path(__file__).with_name("report.html.j2"),
        page,
        folder,
        result=result,
        process=result.process,
        shown=shown[:_LISTED],
        processes=processes,
        units=result.units,
        invalid=int((result.valid_frames < len(result.process.frames)).sum()),
        panel=panel,
        frames=frames,
        figures=[p for p in pictures if in_figures(p, ranked)],
        data=viewer_data(result, panel, pictures, ranked),
        missing=[latent for latent in ranked if latent not in embedded],
        binning=binning_of(result.valid_frames.shape),
        styles=styles("uplot/uPlot.min.css", "theme.css", "figures.css", "page.css"),
        scripts=scripts(),
        verdicts=find_verdicts(result),
        compared_with=printable(result.file["entry/spearman/title"].asstr()[()].removeprefix(_RHO_WITH))[:200],
        few_frames=few_frames_warning(len(result.process.frames), len(result.latent)),
        dose=dose,
        rate=rate,
        left_out=result.curves.frame[result.curves.blank].tolist() if result.curves else [],
    )


def _dose(result: Result) -> tuple[float | None, float | None]:
    """Electrons per square angstrom, per frame and per second, where they are known."""
    curves, record = result.curves, result.process
    dose = curves.dose_per_frame(record.pixel_size) if curves and record.pixel_size else None
    every = len(record.frames) > 1 and (np.diff(record.frames) == 1).all()
    return dose, dose / record.frame_time if dose and record.frame_time and every else None


def _write_tiff(result: Result, name: str, path: Path) -> None:
    """One slice per latent, calibrated for ImageJ."""
    dy, dx = result.spacing
    tifffile.imwrite(
        path,
        (result.maps(name, latent) for latent in result.latent),
        shape=(len(result.latent), *result.valid_frames.shape),
        dtype=np.float32,
        imagej=True,
        resolution=(1 / dx, 1 / dy),
        metadata={
            "axes": "ZYX",
            "unit": result.units,
            "Labels": [f"z{i} {TITLES[name]}" for i in result.latent],
        },
    )

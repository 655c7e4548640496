"""The page of a session: its movies by processes and change, a picture of each, and what failed and why."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.facility.session import Session, SessionMovie, State
from hrtemvae_hpc.facility.session_status import remark
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.maps.page_data import FramePicture, MapPicture, frame_picture, picture_of
from hrtemvae_hpc.maps.page_files import styles
from hrtemvae_hpc.maps.panel import Panel, panel_of
from hrtemvae_hpc.maps.process_cards import ProcessCard, process_cards
from hrtemvae_hpc.maps.report import opened_to_draw, rank_latents
from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.pages import write_page

_SIDE = 384  # pixels of a picture, as there may be hundreds of movies


@dataclass(frozen=True)
class Finding:
    """What a finished movie shows."""

    movie: SessionMovie
    name: str
    score: float  # 99th percentile over the windows of the sum over the latents of (rho x variance)^2
    panel: Panel
    frame: FramePicture
    cards: list[ProcessCard]
    map: MapPicture | None  # of the latent that changes most
    page: str
    facts: str


def write_session_page(session: Session) -> Path:
    """Draw session.html in the session's folder, which is returned.

    Raises InputError if it can't be written. A result that isn't whole, or can't be read or drawn, is listed as
    failed.
    """
    findings, others = [], []
    for movie in session.movies:
        name = printable(session.names[movie.index])
        if movie.state is not State.DONE:
            others.append((name, movie.state.value, remark(movie), movie))
            continue
        try:
            findings.append(_find(session, movie, name))
        except InputError as error:
            others.append((name, State.FAILED.value, printable(str(error)), movie))
    findings.sort(key=lambda f: (len(f.cards), f.score), reverse=True)
    movies = list(session.movies)
    ends = [a.ended for m in movies for a in m.attempts if a.ended is not None]
    begins = [a.began for m in movies for a in m.attempts]
    return write_page(
        Path(__file__).with_name("session.html.j2"),
        session.folder / "session.html",
        session=session,
        findings=findings,
        styles=styles("theme.css", "figures.css"),
        others=others,
        hours=sum(m.device_hours for m in movies),
        began=_clock(min(begins)) if begins else "",
        ended=_clock(max(ends)) if ends else "",
    )


def _find(session: Session, movie: SessionMovie, name: str) -> Finding:
    with opened_to_draw(movie.result) as result:
        together = result.together
        shown = rank_latents(result)
        score = float(np.nanpercentile(together, 99)) if shown else 0.0
        panel, last = panel_of(result, _SIDE), frame_picture(result, len(result.preview) - 1, _SIDE)
        leading = _map(result, shown[0].latent) if shown else None
        cards = process_cards(result, _SIDE)
        facts = f"{', '.join(card.what for card in cards) or 'no process'}, " if result.processes else ""
        facts += f"{len(result.process.frames)} frames, {len(result.y)} x {len(result.x)} windows"
        if result.process.bad_frames:
            facts += f", {len(result.process.bad_frames)} frames left out"
        page = movie.result.with_suffix(".html")
        link = quote(os.fsencode(page.relative_to(session.folder))) if is_file(page) else ""
    return Finding(movie, name, score, panel, last, cards, leading, link, facts)


def _map(result: Result, latent: int) -> MapPicture:
    quantity = "time_correlated_variance"
    return picture_of(quantity, latent, result.maps(quantity, latent), _SIDE)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")

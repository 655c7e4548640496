"""The page of a session: its movies by how much happens in them, a picture of each, and what failed and why."""

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
from hrtemvae_hpc.maps.figures import frame_and_map
from hrtemvae_hpc.maps.report import opened_to_draw, rank_latents
from hrtemvae_hpc.pages import inline, write_page


@dataclass(frozen=True)
class Finding:
    """What a finished movie shows."""

    movie: SessionMovie
    name: str
    score: float  # 99th percentile over the windows of the sum over the latents of (rho x variance)^2
    leading: str
    picture: str
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
    findings.sort(key=lambda f: f.score, reverse=True)
    movies = list(session.movies)
    ends = [a.ended for m in movies for a in m.attempts if a.ended is not None]
    begins = [a.began for m in movies for a in m.attempts]
    return write_page(
        Path(__file__).with_name("session.html.j2"),
        session.folder / "session.html",
        session=session,
        findings=findings,
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
        picture = inline(frame_and_map(result, shown[0].latent)) if shown else ""
        facts = f"{len(result.process.frames)} frames, {len(result.y)} x {len(result.x)} windows"
        if result.process.bad_frames:
            facts += f", {len(result.process.bad_frames)} frames left out"
        page = movie.result.with_suffix(".html")
        link = quote(os.fsencode(page.relative_to(session.folder))) if is_file(page) else ""
    leading = f"z{shown[0].latent}" if shown else "none"
    return Finding(movie, name, score, leading, picture, link, facts)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")

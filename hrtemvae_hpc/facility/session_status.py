"""The state of a session as text: one line per movie."""

import json
import time

from hrtemvae_hpc.errors import printable
from hrtemvae_hpc.facility.session import Session, SessionMovie, State

_STARTS_S = 120.0  # until a run is at work on its result


def describe_session(session: Session) -> str:
    """A table of the movies: state, progress or reason, starts and device hours."""
    movies = list(session.movies)
    counts = {state: sum(m.state is state for m in movies) for state in State}
    width = max((len(_name(session, m)) for m in movies), default=0)
    lines = [f"{'movie':{width}}  state    starts  device h  "]
    for m in movies:
        facts = f"{m.state.value:7}  {len(m.attempts):6}  {m.device_hours:8.2f}"
        lines.append(f"{_name(session, m):{width}}  {facts}  {remark(m)}".rstrip())
    total = sum(m.device_hours for m in movies)
    lines.append(", ".join(f"{n} {state.value}" for state, n in counts.items() if n) + f"; {total:.2f} device hours")
    if any(m.refused for m in movies):
        lines.append("refused movies are tried again when their files change, or with --refused.")
    return "\n".join(lines)


def session_as_json(session: Session) -> str:
    """The same as an object of JSON on one line."""
    movies = [
        {
            "movie": session.names[m.index],
            "result": str(m.result),
            "log": str(m.log),
            "state": m.state.value,
            "starts": len(m.attempts),
            "device_hours": m.device_hours,
            "remark": remark(m),
        }
        for m in session.movies
    ]
    return json.dumps({"session": session.id, "folder": str(session.folder), "movies": movies})


def _name(session: Session, movie: SessionMovie) -> str:
    return printable(session.names[movie.index])


def remark(movie: SessionMovie) -> str:
    """What there is to say about a movie besides its state."""
    if movie.run is not None:
        return printable(str(movie.run))
    if movie.state is State.WAITING and movie.attempts:
        last = movie.attempts[-1]
        if last.ended is None and time.time() - last.began < _STARTS_S:
            return "starting"
        return f"stopped: {printable(movie.reason) or 'its last run disappeared without a message.'}"
    return printable(movie.reason)

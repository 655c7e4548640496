"""What is reported of each drawing of a recording, for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hrtemvae_hpc.live.places import Place


@dataclass(frozen=True)
class Update:
    """A drawing, and the frames that it shows."""

    frame: int  # the last one
    time_s: float | None  # its time since the first, if known
    encoded: int  # frames
    step: int  # between those encoded last
    delay_s: float  # since the last frame was seen to be complete
    drift_px: tuple[float, float]  # down and right, since the first frame
    units: Literal["nm", "pixel"]  # of places
    page: Path
    places: Sequence[Place]  # of the whole recording first, then of its last frames

    def as_json(self) -> str:
        """The same as an object of JSON on one line."""
        drift = [round(each, 2) for each in self.drift_px]
        facts = {**asdict(self), "page": str(self.page), "delay_s": round(self.delay_s, 2), "drift_px": drift}
        return json.dumps({"final": False, **facts})

    def __str__(self) -> str:
        when = "" if self.time_s is None else f" ({self.time_s:.1f} s)"
        every = "" if self.step == 1 else f", one of {self.step} to keep up"
        text = f"frame {self.frame:,}{when}: {self.encoded:,} encoded{every}, drawn {self.delay_s:.1f} s later; "
        if not self.places:
            return text + "nothing follows time beyond chance"
        first, last = self.places[0], self.places[-1]
        if last.first_frame == first.first_frame:
            return f"{text}most at {_describe(first)}"
        return f"{text}most at {_describe(first)}; lately at {_describe(last)}"


def _describe(place: Place) -> str:
    since = f"frame {place.since_frame:,}" if place.since_s is None else f"{place.since_s:.1f} s"
    return f"y {place.y_px:.0f}, x {place.x_px:.0f} px since {since} (z{place.latent}, rho {place.rho:+.2f})"

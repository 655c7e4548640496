"""What a sweep over the number of latents finds, as a page and as numbers (Figure S1 of the article)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.evaluation.evaluate import Measured, Reconstruction, reconstruct
from hrtemvae_hpc.evaluation.figures import against_size, learning_curves, variance_curves
from hrtemvae_hpc.evaluation.page import write_json
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.pages import grey_png, inline, write_page
from hrtemvae_hpc.training.batches import Segments
from hrtemvae_hpc.training.pictures import mosaic
from hrtemvae_hpc.training.sweep import Member

TOLERANCE = 0.01  # of the explained share, within which a number of latents counts as good as the best
_TEMPLATE = Path(__file__).with_name("sweep.html.j2")
_EXAMPLES = 12


@dataclass(frozen=True)
class Trained(Measured):
    """A model of a sweep."""

    reconstruction: Reconstruction
    file: str
    seconds: float  # of its training steps, over all starts

    @property
    def latents(self) -> int:
        return self.model.architecture.latents

    @property
    def epochs(self) -> int:
        return len(self.model.provenance["history"])

    def numbers(self) -> dict[str, Any]:
        """All of it for a JSON file."""
        own = {"latents": self.latents, "file": self.file, "epochs": self.epochs, "seconds": self.seconds}
        return own | super().numbers()


def smallest_sufficient(explained: Mapping[int, float]) -> int:
    """The smallest number of latents whose ``explained`` share is at most ``TOLERANCE`` below the best."""
    least = max(explained.values()) - TOLERANCE
    return min(latents for latents, share in explained.items() if share >= least)


class SweepPage:
    """The page of a sweep with its numbers in a JSON file beside it, written again after each training."""

    def __init__(self, page: Path, members: Sequence[Member]) -> None:
        self._page = page
        self._members = sorted(members, key=lambda member: member.latents)
        self._trained: dict[int, Trained] = {}
        self._refused: dict[int, str] = {}

    @cached_property
    def _segments(self) -> Segments:
        config = self._members[0].config
        return Segments([Path(path) for path in config.data.segments], config.network.window)

    def add(self, member: Member, refusal: str) -> None:
        """Measure the model of ``member`` on its validation segments, unless there is a ``refusal`` of it; write all.

        Raises InputError if a file can't be read or written.
        """
        if refusal:
            self._refused[member.latents] = refusal
        else:
            self._trained[member.latents] = self._measure(member)
        self._write()

    def _measure(self, member: Member) -> Trained:
        model, segments = load_model(member.output), self._segments
        rates = [epoch["segments_per_second"] for epoch in model.provenance["history"]]
        seconds = sum(len(segments.training) / rate for rate in rates)
        return Trained(model, reconstruct(model, segments), member.output.name, seconds)

    def _write(self) -> None:
        trained = [self._trained[m.latents] for m in self._members if m.latents in self._trained]
        missing = [m.latents for m in self._members if m.latents not in self._trained | self._refused]
        explained = {t.latents: t.reconstruction.explained for t in trained}
        sufficient = smallest_sufficient(explained) if explained else None
        names = [f"{n} latent{'s' * (n > 1)}" for n in explained]
        write_page(
            _TEMPLATE,
            self._page,
            trained=trained,
            refused=self._refused,
            missing=missing,
            sufficient=sufficient,
            tolerance=TOLERANCE,
            sizes=inline(against_size(trained)) if len(trained) > 1 else "",
            learning=inline(learning_curves(trained, names)) if trained else "",
            variance=inline(variance_curves(trained, names)) if trained else "",
            examples=_examples(trained, names),
        )
        write_json(
            self._page.with_suffix(".json"),
            {
                "tolerance": TOLERANCE,
                "smallest_within_tolerance": sufficient,
                "trained": [t.numbers() for t in trained],
                "learned_nothing": sorted(self._refused),
                "missing": missing,
            },
        )


def _examples(trained: Sequence[Trained], names: Sequence[str]) -> list[tuple[str, str]]:
    """Rows of pictures as data URLs: the same validation segments, and what each model makes of them."""
    if not trained:
        return []
    rows = [("segments", trained[0].reconstruction.examples[0])]
    rows += [(name, t.reconstruction.examples[1]) for name, t in zip(names, trained, strict=True)]
    return [(name, inline(grey_png(mosaic(np.asarray(images[:_EXAMPLES])[None])))) for name, images in rows]

"""Traces: how the latents of single places change from frame to frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.interpretation.encode import encode_places
from hrtemvae_hpc.interpretation.places import Place
from hrtemvae_hpc.interpretation.reopen import Reopened
from hrtemvae_hpc.interpretation.views import Views, times_of, times_to_show, view
from hrtemvae_hpc.statistics.over_time import MAPS, series_statistics
from hrtemvae_hpc.statistics.series import running_mean
from hrtemvae_hpc.statistics.significance import PermutationTest


@dataclass(frozen=True)
class Traces:
    """The series of some places, and what they amount to."""

    again: Reopened
    places: Sequence[Place]
    latents: np.ndarray  # [latents] int, those that were asked for
    z: np.ndarray  # [frames, places, latents] float32, NaN where not valid
    valid: np.ndarray  # [frames, places] bool
    running: np.ndarray  # [frames, places, latents] float32, means over ten frames
    statistics: dict[str, np.ndarray]  # mean, variance, spearman, time_correlated_variance, p: [places, latents]
    views: Sequence[Views]  # of each place
    agreement: str  # whether variance and rho are those of the result's maps, as a sentence

    @property
    def valid_frames(self) -> np.ndarray:
        """How many frames each series has [places]."""
        return np.asarray(self.valid.sum(0))


def trace(
    again: Reopened,
    places: Sequence[Place],
    latents: Sequence[int] | None = None,
    frames: Sequence[int] | None = None,
    progress: Callable[[int], object] = lambda encoded: None,
) -> Traces:
    """Encode ``places`` again and follow ``latents`` (all of them) over time.

    Windows are shown at ``frames``, by their indices in the file: at the first, the middle and the last valid one of
    each place if None. Raises InputError for unknown latents and frames, and as ``encode_places`` does.
    """
    known = again.result.latent
    chosen = known if latents is None else np.array(latents)
    for latent in chosen:
        if latent not in known:
            raise InputError(f"--latents {latent}: there is no such latent; they are 0 to {len(known) - 1}.")
    shown = None if frames is None else times_of(again, frames)
    z, valid = encode_places(again, places, progress)
    z = np.ascontiguousarray(z[..., chosen])
    test = PermutationTest(again.comparison, torch.device("cpu"))
    computed = series_statistics(torch.from_numpy(z), torch.from_numpy(valid), test)
    statistics = {name: getattr(computed, name).numpy() for name in MAPS} | {"p": computed.chance.numpy()}
    views = [
        view(again, place, times_to_show(valid[:, i]) if shown is None else shown) for i, place in enumerate(places)
    ]
    running = running_mean(z, valid)
    z[~valid] = np.nan
    agreement = _agreement(again, places, chosen, statistics)
    return Traces(again, places, chosen, z, valid, running, statistics, views, agreement)


def _agreement(again: Reopened, places: Sequence[Place], latents: np.ndarray, statistics: dict[str, np.ndarray]) -> str:
    """How variance and rho of places of one window compare with the result's maps; "" if there is no such place.

    They are the same bits where the machine computes as the result's did.
    """
    single = [i for i, place in enumerate(places) if len(place.windows) == 1]
    if not single:
        return ""
    largest, same = 0.0, True
    for name in ("variance", "spearman"):
        maps = again.result.file[f"entry/{name}/data"]
        for i in single:
            row, column = places[i].windows[0]
            ours, theirs = statistics[name][i], maps[:, row, column][latents]
            same &= np.array_equal(ours, theirs, equal_nan=True)
            difference = np.abs(ours - theirs) / np.abs(theirs).clip(1e-30)
            largest = max(largest, float(np.nan_to_num(difference).max(initial=0)))
    if same:
        return "Variance and rho of single windows are those of the maps, to the bit."
    why = again.other_arithmetic
    where = f"this machine computes with {why}" if why else "though this machine computes as the result's did"
    return f"Variance and rho of single windows differ from the maps by at most {largest:.1e} of them: {where}."

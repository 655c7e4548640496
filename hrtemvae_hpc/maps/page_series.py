"""The series that the page of a result shows, as small integers within a budget of bytes."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrtemvae_hpc.maps.processes import leading_latents
from hrtemvae_hpc.maps.result import Result

SERIES_BUDGET = 4_500_000  # bytes of a page
_LEAST_LATENTS = 6  # for which cells are left out
_STEPS, _UNKNOWN = 254, 255


def series_data(result: Result, ranked: Sequence[int]) -> dict[str, Any] | None:
    """What the page's scripts need of the series of ``result``, None if it has none.

    Of as many latents as fit the budget: those that lead in a process first, then as ``ranked``. Of a very large map,
    every n-th cell along both sides.
    """
    if result.series is None or not ranked:
        return None
    kept, room = result.series, SERIES_BUDGET * 3 // 4
    rows, columns = kept.data.shape[:2]
    every = 1
    while -(-rows // every) * -(-columns // every) * kept.cells.bins * _LEAST_LATENTS > room:
        every += 1
    chosen = np.zeros((rows, columns), bool)
    chosen[::every, ::every] = True
    count = int(chosen.sum())
    latents = sorted(_most_wanted(result, ranked)[: max(1, room // (count * kept.cells.bins))])
    values = kept.of(chosen)[:, latents].swapaxes(0, 1)  # [latents, cells, bins]
    coded = [_code(each) for each in values]
    times = _times(result)
    return {
        "side": kept.cells.side * every,
        "spacing": kept.cells.side * every * result.spacing[0],
        "cells": [-(-rows // every), -(-columns // every)],
        "bins": kept.cells.bins,
        "latents": latents,
        "low": [low for _, low, _ in coded],
        "high": [high for _, _, high in coded],
        "frames": kept.frames.tolist(),
        "x": kept.frames.tolist() if times is None else times.tolist(),
        "label": "frame" if times is None else "time / s",
        "windows": base64.b64encode(kept.windows[:, chosen].astype("<i4").tobytes()).decode(),
        "codes": base64.b64encode(b"".join(codes.tobytes() for codes, _, _ in coded)).decode(),
    }


def _most_wanted(result: Result, ranked: Sequence[int]) -> list[int]:
    leading = [leading_latents(w) for w in result.processes.found.weights] if result.processes else []
    return list(dict.fromkeys([*(int(latent) for each in leading for latent in each), *ranked]))


def _code(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """``values`` in 254 steps between the smallest and the largest, and these; 255 where there is none."""
    known = np.isfinite(values)
    low, high = (float(edge(values[known])) if known.any() else 0.0 for edge in (np.min, np.max))
    steps = np.round((np.where(known, values, low) - low) / max(high - low, 1e-30) * _STEPS)
    return np.where(known, steps, _UNKNOWN).astype(np.uint8), low, high


def _times(result: Result) -> np.ndarray | None:
    stored = result.file["entry/series"].get("time")
    return None if stored is None else np.asarray(stored[...], np.float64)

"""What a result holds about each frame: how far it drifted, whether it was followed, and what else changed."""

from dataclasses import dataclass, fields
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import check_array, read_array

NAME = "drift"
_UNITS = {"dy": "pixel", "dx": "pixel", "applied_dy": "pixel", "applied_dx": "pixel", "time": "s"}
_TITLES = {
    "dy": "drift down, since the first frame",
    "dx": "drift to the right, since the first frame",
    "quality": "correlation at the shift found",
    "applied_dy": "rows by which the frame was followed",
    "applied_dx": "columns by which the frame was followed",
    "blank": "whether the frame shows no image",
    "mean": "mean of the frame, counts per pixel",
    "contrast": "standard deviation over mean",
    "focus": "power around the lattice's ring, relative to that of noise",
    "time": "time since the first frame",
}


@dataclass(frozen=True)
class FrameCurves:
    """Per frame [frames]: drift and what was applied (pixels), and measures of the image. ``time`` in s if known."""

    frame: np.ndarray  # index in the file
    dy: np.ndarray
    dx: np.ndarray
    quality: np.ndarray
    applied_dy: np.ndarray
    applied_dx: np.ndarray
    blank: np.ndarray
    mean: np.ndarray
    contrast: np.ndarray
    focus: np.ndarray
    verdict: str
    warning: str
    time: np.ndarray | None = None
    counts_per_electron: float | None = None

    def dose_per_frame(self, pixel_size_nm: tuple[float, float]) -> float | None:
        """Electrons per square angstrom and frame, on average; None if counts are not calibrated."""
        if self.counts_per_electron is None or self.blank.all():
            return None
        electrons = float(self.mean[~self.blank].mean()) / self.counts_per_electron
        return electrons / (100 * pixel_size_nm[0] * pixel_size_nm[1])


def write_curves(entry: h5py.Group, curves: FrameCurves) -> None:
    """Write /entry/drift, an NXdata group whose first curve is the drift downwards."""
    group = entry.create_group(NAME)
    group.attrs.update(NX_class="NXdata", signal="dy", auxiliary_signals=["dx", "quality"], axes=["frame"])
    group["title"] = "drift of the specimen"
    for field in fields(curves):
        value = getattr(curves, field.name)
        if value is None:
            continue
        group[field.name] = value.astype(np.uint8) if field.name == "blank" else value
        if field.name in _TITLES:
            group[field.name].attrs["long_name"] = _TITLES[field.name]
        if field.name in _UNITS:
            group[field.name].attrs["units"] = _UNITS[field.name]


def read_curves(entry: h5py.Group, frames: int) -> FrameCurves | None:
    """The curves of a result of ``frames``, None if drift wasn't measured; ValueError if they are something else."""
    if NAME not in entry:
        return None
    group = entry[NAME]
    values: dict[str, Any] = {}
    for field in fields(FrameCurves):
        if field.name in ("verdict", "warning") or field.name not in group:
            continue
        if field.name == "counts_per_electron":
            values[field.name] = float(read_array(group, field.name, "f", 0))
            continue
        values[field.name] = read_array(group, field.name, "iuf", 1)
        if len(values[field.name]) != frames:
            raise ValueError(f"{NAME}/{field.name} has {len(values[field.name])} values for {frames} frames")
    values["blank"] = values["blank"].astype(bool)
    for name in ("verdict", "warning"):
        values[name] = str(check_array(group, name, "O", 0).asstr()[()])
    return FrameCurves(**values)

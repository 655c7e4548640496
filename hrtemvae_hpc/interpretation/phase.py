"""Rotation and strain within a lattice by geometric phase analysis.

Hytch, Snoeck and Kilaas, Ultramicroscopy 74, 131 (1998): the phase of an image's part around a reflection g changes
with the local g, so that two reflections give the local lattice, as compared with a reference.
"""

from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.interpretation.spectra import Spectrum

_SIGMA = 1.0  # periods of the longer spacing: the resolution of the maps


@dataclass(frozen=True)
class PhaseMaps:
    """A lattice as compared with its reference [rows, columns] float32: NaN where it isn't."""

    rotation: np.ndarray  # degrees, as ``angles`` counts them
    xx: np.ndarray  # strain: relative changes of length, and half the change of the right angle
    yy: np.ndarray
    xy: np.ndarray

    def thinned(self, thin: slice) -> "PhaseMaps":
        """The maps at some rows and columns."""
        return PhaseMaps(*(values[thin, thin] for values in (self.rotation, self.xx, self.yy, self.xy)))


def resolution(reference: np.ndarray) -> float:
    """Sigma in pixels of the Gaussian over which the maps of a lattice of ``reference`` [2, 2] are means."""
    return float(_SIGMA / np.hypot(*reference.T).min())


def phase_maps(spectrum: Spectrum, now: np.ndarray, reference: np.ndarray, inside: np.ndarray) -> PhaseMaps:
    """The lattice of reflections ``now`` [2, 2] at the pixels ``inside``, relative to ``reference`` [2, 2].

    With the reflections as columns of G, a lattice's vectors are those of G^-T, and the deformation from the reference
    is F = G^-T G0^T. Its rotation and stretch follow from F = R U, the strain is U - 1.
    """
    sigma = resolution(reference)
    local = np.stack([spectrum.local_reflection(g, sigma)[:, inside] for g in now], 1)  # [axis, reflection, pixels]
    deformation = np.linalg.inv(np.moveaxis(local, -1, 0)).swapaxes(1, 2) @ reference  # G0^T: rows are reflections
    rotation, stretch = polar(deformation)
    maps = [rotation, stretch[:, 1, 1] - 1, stretch[:, 0, 0] - 1, stretch[:, 0, 1]]
    return PhaseMaps(*(_within(inside, values) for values in maps))


def polar(deformation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [n] in degrees and stretch [n, 2, 2] of deformations [n, 2, 2] of (row, column): F = R U.

    In a plane R turns by the angle whose tangent is (F10 - F01) / (F00 + F11). A positive rotation turns the axis of
    columns towards that of rows: clockwise as an image is shown.
    """
    f = deformation
    angle = np.arctan2(f[:, 0, 1] - f[:, 1, 0], f[:, 0, 0] + f[:, 1, 1])
    cosine, sine = np.cos(angle), np.sin(angle)
    back = np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), -1, 0)  # R^T
    return np.degrees(angle), back @ f


def _within(inside: np.ndarray, values: np.ndarray) -> np.ndarray:
    filled = np.full(inside.shape, np.nan, np.float32)
    filled[inside] = values
    return filled

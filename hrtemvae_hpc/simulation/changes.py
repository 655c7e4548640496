"""Windows of lattices of which each changes in one way: they show which latents of a model follow what."""

import math

import torch
from torch import Tensor

from hrtemvae_hpc.scaling import margin, scaled_windows
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.simulation.lattice_windows import Draw, Simulation, amorphous

ALONG_Y, ALONG_X = "translation along y", "translation along x"
ROTATION, EDGE, CONTRAST, FOCUS = "rotation", "growth and loss at an edge", "contrast", "focus"
CHANGES = (ALONG_Y, ALONG_X, ROTATION, EDGE, CONTRAST, FOCUS)
_TURN = 10.0  # degrees
_EDGE_SHIFT = 2.5  # periods
_LEFT = 0.3  # of the contrast
_BEAMS = {(1, 0): 1.0, (0, 1): 1.0, (1, 1): 0.5, (1, -1): 0.5}  # of a square lattice, with their strengths
_VISIBLE = 0.45  # of the mean, by which a lattice is brighter and darker
_FILM = 0.12  # of that, the speckle of the film


def changing_windows(
    change: str,
    count: int,
    frames: int,
    size: int,
    periods: tuple[float, float],
    generator: torch.Generator,
    scaling: Scaling = "window",
) -> Tensor:
    """Series [count, frames, size, size] of windows, float32, scaled to 0..1, of lattices that undergo ``change``.

    Square lattices of any orientation and phase and of ``periods`` (pixels, shortest and longest), on an amorphous
    film that holds still, under Poisson noise. From the first frame to the last, one of CHANGES happens: a shift by
    one period down or to the right, a rotation by 10 degrees, an edge of any direction that moves by 2.5 periods, a
    fall of the lattice's contrast to 0.3, or a change of focus.

    Focus acts on each beam g of a weak phase object by the contrast transfer function sin(chi), where
    chi = pi * wavelength * defocus * g^2 without spherical aberration (Scherzer 1949, J. Appl. Phys. 20, 20). The
    chi of the shortest g goes from pi/4, where it is for all other changes, to 5 pi/4: the lattice becomes clearer,
    fades and returns with the contrast of these beams reversed.
    """
    draw = Draw(count, generator)
    progress = torch.linspace(0, 1, frames)[:, None, None]

    def share(of: str) -> Tensor:
        return progress if change == of else torch.zeros(())

    period = draw.logarithmic(*periods, 3)
    whole = size + 2 * margin(scaling, size)
    axis = torch.arange(whole) - (whole - 1) / 2
    y, x = axis[:, None] - period * share(ALONG_Y), axis - period * share(ALONG_X)
    sense = torch.where(draw.uniform(0, 1, 3) < 0.5, -1.0, 1.0)
    angle = draw.uniform(0, math.pi / 2, 3) + sense * math.radians(_TURN) * share(ROTATION)
    u = 2 * math.pi * (x * torch.cos(angle) + y * torch.sin(angle)) / period + draw.uniform(0, 2 * math.pi, 3)
    v = 2 * math.pi * (y * torch.cos(angle) - x * torch.sin(angle)) / period + draw.uniform(0, 2 * math.pi, 3)
    chi = math.pi * (0.25 + share(FOCUS))
    lattice = torch.zeros(())
    for (i, j), strength in _BEAMS.items():
        lattice = lattice + strength / 2 * torch.sin(chi * (i**2 + j**2)) * torch.cos(i * u + j * v)
    lattice = lattice * torch.where(draw.uniform(0, 1, 3) < 0.5, -1.0, 1.0) * (1 - (1 - _LEFT) * share(CONTRAST))
    if change == EDGE:
        normal, offset = draw.uniform(0, 2 * math.pi, 3), draw.uniform(-0.3, 0.3, 3) * size
        distance = axis[:, None] * torch.sin(normal) + axis * torch.cos(normal) - offset
        lattice = lattice * torch.sigmoid((distance - _EDGE_SHIFT * period * (progress - 0.5)) / 1.5)
    image = lattice + _FILM * amorphous(whole, draw)[:, None]
    electrons = draw.logarithmic(*Simulation().dose, 3) * (1 + _VISIBLE * image).clamp_min(0.02)
    return scaled_windows(torch.poisson(electrons.expand(count, frames, whole, whole), generator), size, scaling)

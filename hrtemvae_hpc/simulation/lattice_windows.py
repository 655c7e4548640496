"""Random windows of simulated HRTEM images of lattices, each drawn by itself, for training and for tests."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hrtemvae_hpc.scaling import margin, scaled_windows
from hrtemvae_hpc.schemas import Scaling

_SCENES = (0.55, 0.22, 0.10, 0.09, 0.04)  # whole lattice, edge, boundary of two, overlap of two, no lattice
_ONE_BEAM = 0.25  # the share of lattices that show fringes in one direction only
# Latents of directions that are equally frequent are interchangeable, and a network mixes them: no latent would then
# belong to a direction. So most lattices lie along rows or columns, within some degrees, most of those along rows.
_ALIGNED = 0.75
_ALONG_ROWS = 0.9
_ALIGNED_DEGREES = 6.0
_SHORTEST_SUM = 6.0  # pixels; sums of beams with shorter periods are not resolved
PIXEL_SIZE_NM = 0.0145  # the scale at which the periods below are lattice spacings of 0.20 to 0.35 nm
_HOT = 0.04  # the share of windows with a hot pixel


@dataclass(frozen=True)
class Simulation:
    """What the simulated images may hold. Periods in pixels, dose in electrons per pixel."""

    periods: tuple[float, float] = (14.0, 24.0)
    dose: tuple[float, float] = (100.0, 20000.0)


def random_windows(
    count: int, size: int, simulation: Simulation, generator: torch.Generator, scaling: Scaling = "window"
) -> Tensor:
    """``count`` windows [count, size, size], float32, scaled to 0..1.

    Each shows one of: a lattice over the whole of it, a lattice that ends at an edge, two lattices that meet or
    overlap, or none; of any phase and angle between its beams, three quarters of them within some degrees of rows or
    columns, the rest of any orientation; with a contrast that varies with thickness and defocus, on an amorphous film,
    under Poisson noise, some with a hot pixel.
    """
    draw = Draw(count, generator)
    whole = size + 2 * margin(scaling, size)
    axis = torch.arange(whole, dtype=torch.float32) - (whole - 1) / 2
    y, x = axis[None, :, None], axis[None, None, :]

    scene = draw.choice(_SCENES)
    normal, offset = draw.uniform(0, 2 * math.pi), draw.uniform(-0.4, 0.4) * size
    side = torch.sigmoid((y * torch.sin(normal) + x * torch.cos(normal) - offset) / draw.uniform(0.5, 3.0))
    one = torch.ones_like(side)
    first = _pick(scene, one, side, side, one, 0 * one)
    second = _pick(scene, 0 * one, 0 * one, 1 - side, 0.7 * one, 0 * one)

    crystal = first * _lattice(y, x, size, draw, simulation) + second * _lattice(y, x, size, draw, simulation)
    image = crystal + amorphous(whole, draw) * draw.uniform(0.02, 0.12)
    image = image + _ramp(y, x, size, draw) * draw.uniform(0, 0.2) + side * draw.uniform(-0.2, 0.2)
    dose = draw.logarithmic(*simulation.dose)
    electrons = torch.poisson(dose * stretched(image, 1 - draw.uniform(0.4, 0.85)), generator)

    hot = draw.uniform(0, 1, 1)[:, 0] < _HOT
    place = torch.randint(whole * whole, (count,), generator=generator)
    peak = electrons.flatten(1).amax(1) * (1 + draw.uniform(0, 2, 1)[:, 0])
    electrons.flatten(1)[hot, place[hot]] = peak[hot]
    return scaled_windows(electrons, size, scaling)


class Draw:
    """One random number for each window: tensors [count, 1, 1], with as many further axes as ``axes`` says."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self.generator = generator

    def uniform(self, low: float, high: float, axes: int = 2) -> Tensor:
        return low + (high - low) * torch.rand(self.count, *(1,) * axes, generator=self.generator)

    def normal(self, sigma: float) -> Tensor:
        return sigma * torch.randn(self.count, 1, 1, generator=self.generator)

    def logarithmic(self, low: float, high: float, axes: int = 2) -> Tensor:
        return torch.exp(self.uniform(math.log(low), math.log(high), axes))

    def choice(self, shares: tuple[float, ...]) -> Tensor:
        drawn = torch.multinomial(torch.tensor(shares), self.count, replacement=True, generator=self.generator)
        return drawn[:, None, None]


def _pick(scene: Tensor, *covers: Tensor) -> Tensor:
    chosen = torch.zeros_like(covers[0])
    for kind, cover in enumerate(covers):
        chosen = torch.where(scene == kind, cover, chosen)
    return chosen


def _lattice(y: Tensor, x: Tensor, size: int, draw: Draw, simulation: Simulation) -> Tensor:
    """Two beams, their sum and difference, as spots that are brighter or darker than sinusoidal, within -1..1."""
    low, high = simulation.periods
    period = draw.logarithmic(low, high)
    other = (period * draw.logarithmic(0.7, 1.43)).clamp(low, high)
    aligned = draw.uniform(0, 1) < _ALIGNED
    along = torch.where(draw.uniform(0, 1) < _ALONG_ROWS, 0.0, math.pi / 2)
    tilted = along + draw.normal(math.radians(_ALIGNED_DEGREES))
    angle = torch.where(aligned, tilted, draw.uniform(0, 2 * math.pi))
    square = draw.uniform(0, 1) < 0.6
    between = math.pi / 2 + torch.where(square, draw.normal(math.radians(2)), draw.uniform(-0.7, 0.7))
    beams = [(torch.cos(a) / p, torch.sin(a) / p) for a, p in ((angle, period), (angle + between, other))]
    phases = [draw.uniform(0, 2 * math.pi) for _ in beams]
    one_beam = draw.uniform(0, 1) < _ONE_BEAM
    strengths = [torch.ones(()), torch.where(one_beam, 0.0, draw.uniform(0.5, 1.0))]
    for sign in (1, -1):
        combined = (beams[0][0] + sign * beams[1][0], beams[0][1] + sign * beams[1][1])
        resolved = torch.hypot(combined[0], combined[1]) < 1 / _SHORTEST_SUM
        beams.append(combined)
        phases.append(phases[0] + sign * phases[1])
        strengths.append(torch.where(resolved & ~one_beam, draw.uniform(0, 0.35), 0.0))
    wave = torch.zeros(())
    for (gx, gy), phase, strength in zip(beams, phases, strengths, strict=True):
        wave = wave + strength * torch.cos(2 * math.pi * (x * gx + y * gy) + phase)
    wave = wave / torch.stack([s.expand_as(strengths[1]) for s in strengths]).sum(0)
    sharpness = draw.uniform(0.2, 1.5)
    spots = 2 * torch.exp(sharpness * (wave - 1)) - 1
    contrast = torch.where(draw.uniform(0, 1) < 0.5, -1.0, 1.0) * draw.uniform(0.5, 1.0)
    thickness = 1 + draw.uniform(0, 0.6) * _ramp(y, x, size, draw)
    return contrast * thickness * spots


def _ramp(y: Tensor, x: Tensor, size: int, draw: Draw) -> Tensor:
    """A slope in a random direction, within -1..1."""
    angle = draw.uniform(0, 2 * math.pi)
    return (y * torch.sin(angle) + x * torch.cos(angle)) / (size / math.sqrt(2))


def amorphous(size: int, draw: Draw) -> Tensor:
    """White noise low-passed to grains of some pixels, unit standard deviation."""
    noise = torch.fft.rfft2(torch.randn(draw.count, size, size, generator=draw.generator))
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    width = draw.uniform(0.05, 0.15)
    grains: Tensor = torch.fft.irfft2(noise * torch.exp(-(fy**2 + fx**2) / (2 * width**2)), s=(size, size))
    return grains / grains.std((1, 2), keepdim=True)


def stretched(image: Tensor, low: Tensor) -> Tensor:
    """Each window [..., rows, columns] scaled so that its minimum is ``low`` and its maximum is 1."""
    least, most = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
    return low + (1 - low) * (image - least) / (most - least).clamp_min(1e-12)

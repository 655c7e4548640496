"""Multislice movies with a known answer: two crystals on amorphous carbon; one rotates, faces grow and shrink.

    pip install abtem
    python benchmarks/multislice.py -o movie.h5 [--material PbS] [--misfit 13.7 9.3] [--defocus 15] [--dose 60] ...

Images are computed by abTEM (GPL; a tool of this benchmark alone) through the independent-atom potential of all atoms,
which are displaced at random in each frame, as by heat. /entry/truth holds what that of `hrtemvae simulate` does, so
that `python -m hrtemvae_hpc.maps.verdict` judges maps of these movies too: misfit_degrees [frames], area_px [frames, 2]
of the first (growing) and the second (rotating and shrinking) crystal, as their atoms take it, and the masks rotating,
growing, shrinking and still. `--process` leaves only the rotation, the edges or nothing.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import abtem
import numpy as np
from ase import Atoms
from ase.build import bulk
from scipy import ndimage

from hrtemvae_hpc.movie.write import write_movie

FRAME_TIME_S = 0.8
FIRST_ANGLE = 7.0  # degrees
BOUNDARY, LEFT, RIGHT, TOP, BOTTOM = 0.48, 0.24, 0.84, 0.17, 0.83  # shares of the frame: where the crystals end
GAP = 1.0  # angstrom between the crystals
CARBON = 0.1  # atoms per cubic angstrom
VACUUM = 5.0  # angstrom above and below
MATERIALS = {"PbS": ("PbS", "rocksalt", 5.936), "Au": ("Au", "fcc", 4.078), "MgO": ("MgO", "rocksalt", 4.212)}
PROCESSES = ("all", "rotation", "edges", "none")


class Scene:
    """Two crystals seen along [001] on a support; lengths in angstrom, positions (row, column)."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.random = np.random.default_rng(options.seed)
        self.shape = tuple(options.size)
        self.pixel = options.pixel_size * 10
        self.extent = np.array(self.shape) * self.pixel
        name, structure, self.constant = MATERIALS[options.material]
        self.cell = bulk(name, structure, a=self.constant, cubic=True)
        self.thickness, self.support, self.heat = 10 * options.thickness, 10 * options.support, 10 * options.heat
        self.misfit = options.misfit if options.process in ("all", "rotation") else (options.misfit[0],) * 2
        self.shift = 10 * options.growth if options.process in ("all", "edges") else 0.0
        self.height = self.support + self.thickness + 2 * VACUUM
        carbon = self.random.uniform(0, 1, (round(CARBON * self.extent.prod() * self.support), 3))
        self.carbon = carbon * [*self.extent, self.support] + [0, 0, VACUUM]
        self.centre = np.array([0.5, BOUNDARY]) * self.extent

    def crystal(self, which: int, degrees: float, progress: float) -> Atoms:
        """The atoms of the first (0) or second (1) crystal; heights count from the support."""
        width, depth = math.ceil(1.5 * self.extent.max() / self.constant), max(1, round(self.thickness / self.constant))
        block = self.cell.repeat((width, width, depth))
        at = block.positions - np.array([width // 2, width // 2, 0]) * self.constant
        a = math.radians(degrees)
        turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])  # (row, column), clockwise as seen
        at[:, :2] = at[:, :2] @ turn.T + self.centre
        rows, columns = at[:, 0] / self.extent[0], at[:, 1]
        boundary = BOUNDARY * self.extent[1]
        if which == 0:
            inside = (columns > LEFT * self.extent[1] - progress * self.shift) & (columns < boundary - GAP / 2)
        else:
            inside = (columns > boundary + GAP / 2) & (columns < RIGHT * self.extent[1] - progress * self.shift)
        inside &= (rows > TOP) & (rows < BOTTOM)
        return Atoms(np.array(block.get_chemical_symbols())[inside], at[inside])

    def cover(self, crystal: Atoms) -> np.ndarray:
        """The pixels [rows, columns] about as near to a column of atoms as half the distance of columns."""
        columns = np.rint(crystal.positions[:, :2] / self.pixel).astype(int)
        empty = np.ones(self.shape, bool)
        empty[tuple(np.clip(columns, 0, np.array(self.shape) - 1).T)] = False
        reach = self.constant / 2 / self.pixel
        near = ndimage.distance_transform_edt(empty) < reach
        return np.asarray(ndimage.distance_transform_edt(near) > reach / 2)

    def area(self, crystal: Atoms) -> float:
        """The pixels that a crystal takes: those of an atom of its lowest layer, times their number."""
        lowest, of_cell = (atoms.positions[:, 2] < self.constant / 4 for atoms in (crystal, self.cell))
        return float(lowest.sum() / of_cell.sum() * (self.constant / self.pixel) ** 2)

    def image(self, crystals: list[Atoms], options: argparse.Namespace) -> np.ndarray:
        """The intensity [rows, columns], 1 without a specimen."""
        atoms = Atoms(f"C{len(self.carbon)}", self.carbon)
        for crystal in crystals:
            moved = crystal.copy()
            moved.positions[:, 2] += VACUUM + self.support + 1.0
            atoms += moved
        atoms.positions += self.random.normal(0, self.heat, atoms.positions.shape)
        atoms.set_cell([*self.extent, self.height])
        atoms.positions[:, 2] = self.height - atoms.positions[:, 2]  # the beam meets the crystals first
        potential = abtem.Potential(atoms, gpts=self.shape, slice_thickness=2.0)
        exit_wave = abtem.PlaneWave(energy=1e3 * options.voltage).multislice(potential)
        lens = abtem.CTF(
            energy=1e3 * options.voltage,
            defocus=10 * options.defocus,
            Cs=1e4 * options.cs,
            focal_spread=30.0,
            semiangle_cutoff=40.0,
        )
        wave = exit_wave.apply_ctf(lens).compute(progress_bar=False)
        return np.asarray(wave.intensity().array, float)


def simulate(scene: Scene, options: argparse.Namespace, frames: list[list[Atoms]]) -> Iterator[np.ndarray]:
    """The frames [rows, columns] uint16 of what happens in ``scene``."""
    began = time.monotonic()
    for t, (crystals, beam) in enumerate(zip(frames, illumination(options), strict=True)):
        image = scene.image(crystals, options)
        electrons = scene.random.poisson(options.dose * np.clip(beam * image, 0, None))
        yield np.minimum(electrons, np.iinfo(np.uint16).max).astype(np.uint16)
        print(f"frame {t + 1} of {len(frames)}, {time.monotonic() - began:.0f} s", flush=True)


def illumination(options: argparse.Namespace) -> np.ndarray:
    """The beam's intensity [frames, 1, columns] relative to its mean; its gradient turns round over time."""
    flicker = np.random.default_rng([options.seed, 1]).normal(0, options.flicker, (options.frames, 1, 1))
    over_time = np.linspace(-1, 1, options.frames)[:, None, None]
    return np.asarray((1 + flicker) * (1 + options.gradient * over_time * np.linspace(-1, 1, options.size[1])))


def truth_of(scene: Scene, misfit: np.ndarray, frames: list[list[Atoms]]) -> dict[str, np.ndarray]:
    """What happens: angles and areas of each frame, and where."""
    ends = [[scene.cover(crystal) for crystal in frames[end]] for end in (0, -1)]
    (first, second), (first_after, second_after) = ends
    grows = np.full(scene.shape, scene.shift > 0)
    return {
        "misfit_degrees": misfit,
        "area_px": np.array([[scene.area(crystal) for crystal in crystals] for crystals in frames]),
        "rotating": second & second_after if misfit[0] != misfit[-1] else np.zeros(scene.shape, bool),
        "growing": first_after & ~first & grows,
        "shrinking": second & ~second_after & ~first_after & grows,
        "still": first & first_after | ~(first | second | first_after | second_after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--material", choices=MATERIALS, default="PbS")
    parser.add_argument("--process", choices=PROCESSES, default="all", help="what happens")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=(288, 384), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--pixel-size", type=float, default=0.0145, help="nm")
    parser.add_argument("--misfit", type=float, nargs=2, default=(13.7, 9.3), help="degrees, first and last")
    parser.add_argument("--growth", type=float, default=0.75, help="nm by which each free face moves")
    parser.add_argument("--thickness", type=float, default=3.0, help="nm of the crystals")
    parser.add_argument("--support", type=float, default=1.0, help="nm of amorphous carbon")
    parser.add_argument("--heat", type=float, default=0.008, help="nm by which atoms are displaced")
    parser.add_argument("--defocus", type=float, default=12.0, help="nm, positive is underfocus")
    parser.add_argument("--cs", type=float, default=-5.0, help="micrometres")
    parser.add_argument("--voltage", type=float, default=300.0, help="kV")
    parser.add_argument("--dose", type=float, default=60.0, help="electrons per pixel and frame")
    parser.add_argument("--flicker", type=float, default=0.0, help="deviation of frames' doses, share of the mean")
    parser.add_argument("--gradient", type=float, default=0.0, help="of the dose, to a border, share of the mean")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    abtem.config.set({"device": "cpu", "dask.lazy": False})
    scene = Scene(options)
    progress = np.linspace(0, 1, options.frames)
    misfit = np.linspace(*scene.misfit, options.frames)
    frames = [
        [scene.crystal(0, FIRST_ANGLE, p), scene.crystal(1, FIRST_ANGLE + angle, p)]
        for p, angle in zip(progress, misfit, strict=True)
    ]
    write_movie(
        options.output,
        simulate(scene, options, frames),
        (options.frames, *scene.shape),
        np.dtype(np.uint16),
        options.pixel_size,
        FRAME_TIME_S,
        truth_of(scene, misfit, frames),
    )


if __name__ == "__main__":
    main()

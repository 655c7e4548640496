"""A file of segments that are simulated instead of cut from micrographs."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.outputs import Output, check_outputs, is_segments
from hrtemvae_hpc.ranks.progress import Progress, say
from hrtemvae_hpc.segments.cut_options import CutOptions
from hrtemvae_hpc.segments.segment_file import LEVELS, SourceSegments, write_segments
from hrtemvae_hpc.simulation.lattice_windows import PIXEL_SIZE_NM, Simulation, random_windows

_AT_ONCE = 1000
_DRAWN_TOGETHER = 100  # fit into caches


def simulate_segments(output: Path, count: int, options: CutOptions, validation: float) -> int:
    """Write ``count`` simulated segments to ``output``, the last share ``validation`` of them for validation.

    Of ``options``, window, scaling, threshold and seed count. Raises InputError if there would be too few.
    """
    check_outputs([Output(output, "the segments", is_segments)])
    if count < 20:
        raise InputError(f"--simulated {count}: at least 20 segments are needed.")
    simulation = Simulation()
    progress = Progress(count, "segment")

    def sources() -> Iterator[SourceSegments]:
        generator = torch.Generator().manual_seed(options.seed)
        for start in range(0, count, _AT_ONCE):
            n = min(_AT_ONCE, count - start)
            counts = [min(_DRAWN_TOGETHER, n - i) for i in range(0, n, _DRAWN_TOGETHER)]
            drawn = (random_windows(c, options.window, simulation, generator, options.scaling) for c in counts)
            segments = torch.cat(list(drawn))
            strength, period = find_fringes(segments)
            columns = {
                "strength": strength.numpy(),
                "period": np.where(strength > options.threshold, period, np.nan).astype(np.float32),
                "frame": np.zeros(n, np.int32),
                "place": np.zeros((n, 2), np.int32),
                "turned": np.zeros(n, np.float32),
                "validation": np.arange(start, start + n) >= count - math.ceil(validation * count),
            }
            facts = {"pixel_size_nm": PIXEL_SIZE_NM, "looked_at": n}
            yield SourceSegments(
                f"simulated {start}", facts, (segments * LEVELS).round().numpy().astype(np.uint16), columns
            )
            progress.update(start + n)

    about = {"simulation": asdict(simulation), "cut": options.model_dump(mode="json"), "validation": validation}
    write_segments(output, options.window, sources(), count, about)
    progress.close()
    say(f"{count:,} simulated segments: {output}")
    return 0

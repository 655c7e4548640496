"""The program in which a pixel of frame 7 changes after its digest was taken, as in faulty memory."""

from collections.abc import Callable

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.conversion.blocks import Converter

packer = Converter._packer
layers = iter([0])


def faulty(self: Converter, layer: np.ndarray) -> Callable[[list[Area]], list[bytes]]:
    for _ in layers:
        layer[7, 3, 4] ^= 1
    return packer(self, layer)


Converter._packer = faulty  # type: ignore[method-assign]
main()

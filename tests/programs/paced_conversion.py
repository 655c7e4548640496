"""The program with blocks of HRTEMVAE_BLOCK bytes, each noted HRTEMVAE_PACE seconds later."""

import os
import time
from collections.abc import Mapping, Sequence

from hrtemvae_hpc.cli import main
from hrtemvae_hpc.conversion import blocks
from hrtemvae_hpc.conversion.parts import Parts
from hrtemvae_hpc.movie.converted import PackedBlock

PACE = float(os.environ.get("HRTEMVAE_PACE", "0"))
write = Parts._write


def paced(
    self: Parts, number: int, block: PackedBlock, place: Mapping[str, object], chunks: Sequence[bytes | memoryview]
) -> None:
    time.sleep(PACE)
    write(self, number, block, place, chunks)


blocks._BLOCK_BYTES = int(os.environ["HRTEMVAE_BLOCK"])
Parts._write = paced  # type: ignore[method-assign]
main()

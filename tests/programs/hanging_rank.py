"""The program with a rank 2 that hangs before the first tile; the others name it after a second."""

import time

from hrtemvae_hpc.analysis import opened
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks import world
from hrtemvae_hpc.ranks.guard import rank_of_launcher

world.NAME_AFTER_S = 1.0
if rank_of_launcher() == 2:
    opened.load_model = lambda _: time.sleep(600)  # type: ignore[assignment, attr-defined, return-value]
main()

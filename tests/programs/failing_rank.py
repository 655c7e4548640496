"""The program with a defect that rank 1 meets in its first tile."""

from hrtemvae_hpc.analysis import worker
from hrtemvae_hpc.analysis.worker import Finished, Order
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks.guard import rank_of_launcher
from hrtemvae_hpc.windows.grid import Tiling

compute = worker.Worker._compute


def fail(self: worker.Worker, order: Order, tiling: Tiling) -> Finished:
    if rank_of_launcher() == 1:
        raise ArithmeticError("the device is on fire")
    return compute(self, order, tiling)


worker.Worker._compute = fail  # type: ignore[method-assign]
main()

"""The program with ranks that each believe to analyse another movie."""

from hrtemvae_hpc.analysis.opened import Job
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks.guard import rank_of_launcher

identity = Job.identity.fget  # type: ignore[attr-defined]
Job.identity = property(  # type: ignore[assignment, method-assign]
    lambda self: identity(self) | {"movie": rank_of_launcher()}
)
main()

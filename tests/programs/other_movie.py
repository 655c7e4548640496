"""The program with ranks that each believe to analyse another movie."""

from hrtemvae_hpc.analysis import job
from hrtemvae_hpc.cli import main
from hrtemvae_hpc.ranks.guard import rank_of_launcher

identity = job.Job.identity.fget
job.Job.identity = property(lambda self: identity(self) | {"movie": rank_of_launcher()})
main()

"""The program that judges models by windows 64 pixels apart and by few lattices, a sixteenth of what it would take."""

from hrtemvae_hpc.cli import main
from hrtemvae_hpc.evaluation import groups, movements

movements._STEP = 64
groups._LATTICES = 16
main()

"""The program that judges models by windows 64 pixels apart, a sixteenth of what it would take."""

from hrtemvae_hpc.cli import main
from hrtemvae_hpc.evaluation import movements

movements._STEP = 64
main()

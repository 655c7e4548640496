"""``python -m hrtemvae_hpc`` is the ``hrtemvae`` command."""

from hrtemvae_hpc.cli import main

main()

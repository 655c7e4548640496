"""The command line: a table of commands, one file for each or for a family, and options from the schemas."""

from hrtemvae_hpc.cli.main import main

__all__ = ["main"]

"""The command line: a table of commands, one file for each or for a group, and options from the schemas."""

from hrtemvae_hpc.cli.main import main

__all__ = ["main"]

"""The program in Python, for notebooks and workflows: results as xarray. It needs the extra ``notebook``."""

from hrtemvae_hpc.api.encoding import encode, load_model
from hrtemvae_hpc.api.results import open_result, trace
from hrtemvae_hpc.api.running import analyze

__all__ = ["analyze", "encode", "load_model", "open_result", "trace"]

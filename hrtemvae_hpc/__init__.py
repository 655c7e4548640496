"""Batch analysis of in situ high-resolution TEM movies with a variational autoencoder."""

__version__ = "0.1.0"

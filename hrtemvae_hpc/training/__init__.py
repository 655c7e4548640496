"""Segments from micrographs, and the training of a model."""

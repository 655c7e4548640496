"""Segments with lattice fringes, from micrographs to one file."""

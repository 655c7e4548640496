"""Lattices and movies with known answers."""

"""What a model has understood: tests on moving lattices, reconstruction, traversals, comparisons."""

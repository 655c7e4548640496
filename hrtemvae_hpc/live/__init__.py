"""Maps of a movie while it is recorded: its frames are encoded as they arrive."""

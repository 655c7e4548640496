"""Converting a movie of any known format: corrected frames into one file, on ranks and threads."""

"""Files of movies: finding the movie in them, its axes and calibration, reading tiles, preprocessing."""

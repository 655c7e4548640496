"""How far the specimen drifts during a movie, estimated from its frames."""

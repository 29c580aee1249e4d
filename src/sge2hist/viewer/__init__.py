"""A generated slide beside the real one, in a browser."""

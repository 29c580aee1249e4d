"""Model and expression -> images."""

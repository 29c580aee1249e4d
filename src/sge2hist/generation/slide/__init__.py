"""Generation of whole slides."""

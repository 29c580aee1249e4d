"""Nuclei and cells in images, and the counts that belong to them."""

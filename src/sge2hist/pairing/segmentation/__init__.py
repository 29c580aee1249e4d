"""Nuclei and cells in images, and the bins that belong to them."""

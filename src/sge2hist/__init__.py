"""Generate H&E histology images from spatially resolved single-cell gene expression."""

__version__ = "0.1.0"

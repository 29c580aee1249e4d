"""Training of the gene model."""

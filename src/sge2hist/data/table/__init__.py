"""One AnnData table, in memory, in an h5ad or in a SpatialData store: its matrices, raw counts, genes and positions."""

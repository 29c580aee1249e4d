"""`Section` -> `PairedDataset`: image checks, bins to cells, QC, labels, split and the alignment report."""

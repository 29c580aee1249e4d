"""`PairedDataset` -> model: data loading, the stages of training, checkpoints."""

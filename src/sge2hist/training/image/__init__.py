"""Training of the autoencoder and the image model."""

"""The gene model: a VAE with a Gaussian mixture prior."""

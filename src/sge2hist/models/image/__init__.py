"""The image model: a conditioned diffusion model in the latent space of an autoencoder."""

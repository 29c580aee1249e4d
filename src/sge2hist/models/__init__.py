"""Models: gene VAE with mixture prior, image autoencoder, conditioning, denoiser, samplers, and model folders."""

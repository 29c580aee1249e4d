"""Tensors only: gene VAE and mixture, image autoencoder, placed cells, denoiser, samplers."""

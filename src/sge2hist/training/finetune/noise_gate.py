"""The gate of the decoder noise: where real tissue is smooth (glass, lumens, fat), no random texture is added.

The gate is a logistic regression on the features of the decoder, one weight per channel. It is fitted to the local contrast of
real training patches, as a share of that of ordinary tissue.

Shape letters: B images, C channels, H W pixels, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.training.finetune.autoencoder import with_autoencoder

WINDOW = 5  # px of the local contrast
N_STEPS = 400
LEARNING_RATE = 0.05
WEIGHT_PENALTY = 1e-3
FLAT = 2 / 127.5  # contrast of glass and lumens, at most: two grey levels
SHARE_OF_ORDINARY = 0.5  # of the median contrast of what is not flat: from there on the gate should be open


def local_contrast(image_BCHW: Tensor) -> Tensor:
    """Standard deviation over windows of 5 px, mean over channels, at half resolution: [B, 1, H/2, W/2]."""
    mean = F.avg_pool2d(image_BCHW, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    square = F.avg_pool2d(image_BCHW**2, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return F.avg_pool2d((square - mean**2).clamp_min(0).sqrt().mean(1, keepdim=True), 2)


def fit_noise_gate(autoencoder: Autoencoder, image_BCHW: Tensor) -> nn.Conv2d:
    """The gate for real images in [-1, 1]: open from half of the ordinary contrast on, closed where flat."""
    with torch.no_grad():
        features = autoencoder.features_at_half(autoencoder.encode(image_BCHW)).float()
    contrast = local_contrast(image_BCHW)
    textured = contrast[contrast > FLAT]
    ordinary = textured.median() if len(textured) else contrast.new_tensor(FLAT)
    target = (contrast / (SHARE_OF_ORDINARY * ordinary)).clamp(0, 1) ** 2
    x, y = features.permute(0, 2, 3, 1).flatten(0, 2), target.flatten()
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    standard = (x - mean) / std
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    for _ in range(N_STEPS):
        loss = F.binary_cross_entropy_with_logits(standard @ weight + bias, y) + WEIGHT_PENALTY * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate = nn.Conv2d(x.shape[1], 1, 1)
    with torch.no_grad():
        gate.weight.copy_((weight / std)[None, :, None, None])
        gate.bias = nn.Parameter((bias - (weight * mean / std).sum())[None])
    return gate


def with_noise_gate(trained: ModelBundle, image_BCHW: Tensor) -> ModelBundle:
    """The same model with a gate of its decoder noise, fitted on real training images; itself where it has one, or no noise."""
    autoencoder = trained.model.image.autoencoder
    if autoencoder is None or autoencoder.noise_proj is None or autoencoder.noise_gate is not None:
        return trained
    own = {f"noise_gate.{name}": value for name, value in fit_noise_gate(autoencoder, image_BCHW).state_dict().items()}
    return with_autoencoder(trained, own, noise_gate=True)

"""The correction of decoded images, fitted to real images of training cells and generated ones of the same cells.

Shape letters: B images, C channels, H W pixels, k side of the kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sge2hist.data.slides.channels import is_rgb
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.correction import ABSORBED, EMITTED, KERNEL_PX, MIN_LIGHT, ImageCorrection
from sge2hist.training.finetune.autoencoder import with_autoencoder

GLASS_QUANTILE = 0.99  # of the light of real images, per channel
MAX_FACTOR = 1.25  # of tone, either way
MAX_GAIN = 4.0  # of a frequency
KEPT_BELOW, KEPT_WIDTH = 0.08, 0.02  # cycles per px: lower frequencies follow the cells and stay as they are
SMOOTHING = 1.5  # standard deviation over frequencies, in steps of the transform


def fit_correction(
    real_BCHW: Tensor, generated_BCHW: Tensor, kind: str, glass_C: Tensor | None = None
) -> ImageCorrection:
    """The correction that gives generated images the tone and the spectrum of real ones, both in [-1, 1].

    `glass_C`: light of empty glass, 0 to 1, for absorbed light; None: the brightest hundredth of the real pixels.

    Factors are the ratio of the mean optical density (or light). The gain of a frequency is the root of the ratio of the mean
    power spectra, which makes the spectra equal.
    """
    found = ImageCorrection(real_BCHW.shape[1], kind)
    real, generated = real_BCHW.double(), generated_BCHW.double()
    if kind == ABSORBED:
        if glass_C is None:
            light = ((real + 1) / 2).movedim(1, 0).flatten(1)
            glass_C = torch.stack([one.kthvalue(max(1, round(GLASS_QUANTILE * len(one)))).values for one in light])
        found.glass_C.copy_(glass_C)
    found.factor_C.copy_(_factors(real, generated, found))
    found.kernel_C1kk.copy_(_kernels(real, found.tone(generated.float()).double()))
    return found


def _factors(real: Tensor, generated: Tensor, found: ImageCorrection) -> Tensor:
    """Mean density (or light) of real images over that of generated ones, [C]."""

    def amount(image: Tensor) -> Tensor:
        light = (image + 1) / 2
        if found.kind == ABSORBED:
            light = -(light.clamp_min(MIN_LIGHT) / found.glass_C[:, None, None]).log()
        return light.mean((0, 2, 3)).clamp_min(1e-4)

    return (amount(real) / amount(generated)).clamp(1 / MAX_FACTOR, MAX_FACTOR)


def _kernels(real: Tensor, generated: Tensor) -> Tensor:
    """Symmetric kernels [C, 1, k, k] of sum 1 whose response is the gain of each frequency."""
    side = real.shape[-1]
    gain = (mean_power(real) / mean_power(generated).clamp_min(1e-12)).sqrt().clamp(1 / MAX_GAIN, MAX_GAIN)
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None])
    gain = gain ** torch.sigmoid((radius - KEPT_BELOW) / KEPT_WIDTH)
    impulse = torch.fft.fftshift(torch.fft.ifft2(gain).real, dim=(1, 2))
    start = side // 2 - KERNEL_PX // 2
    kernel = impulse[:, start : start + KERNEL_PX, start : start + KERNEL_PX]
    kernel = (kernel + kernel.flip(1, 2)) / 2
    taper = torch.hann_window(KERNEL_PX + 2, periodic=False, dtype=torch.float64)[1:-1].sqrt()
    kernel = kernel * taper[:, None] * taper
    kernel[:, KERNEL_PX // 2, KERNEL_PX // 2] += 1 - kernel.sum((1, 2))
    return kernel[:, None].float()


def mean_power(image_BCHW: Tensor) -> Tensor:
    """Mean power spectrum of square images, smoothed over neighbouring frequencies: [C, H, W], frequency 0 first.

    A Hann window keeps the edges of the images from adding power of their own (Harris 1978).
    """
    side = image_BCHW.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=image_BCHW.dtype)
    centred = (image_BCHW - image_BCHW.mean((2, 3), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(centred).abs().square().mean(0)
    reach = round(3 * SMOOTHING)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=power.dtype) / SMOOTHING) ** 2)
    for shape in ((-1, 1), (1, -1)):
        pad = (0, 0, reach, reach) if shape == (-1, 1) else (reach, reach, 0, 0)
        kernel = (weight / weight.sum()).reshape(1, 1, *shape)
        power = F.conv2d(F.pad(power[:, None], pad, mode="circular"), kernel)[:, 0]
    return power


def with_correction(trained: ModelBundle, correction: ImageCorrection | None) -> ModelBundle:
    """The same model with this correction of its images in place of its own; None: without any.

    Raises
    ------
    InputError
        If the model has no decoder.
    """
    if correction is None:
        return with_autoencoder(trained, correction="")
    own = {f"correction.{name}": value for name, value in correction.state_dict().items()}
    return with_autoencoder(trained, own, correction=correction.kind)


def glass_of(bundle: ModelBundle) -> Tensor | None:
    """Light of empty glass in the training slide, 0 to 1; None where it is not known."""
    known = bundle.provenance.get("glass_rgb")
    return None if known is None or kind_of(bundle) != ABSORBED else torch.tensor(known) / 255


def kind_of(bundle: ModelBundle) -> str:
    """How the images of a model come about: by absorbed or by emitted light."""
    return ABSORBED if is_rgb(bundle.config.channels) else EMITTED

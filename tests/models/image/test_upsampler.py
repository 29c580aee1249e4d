"""The upsampler: detail and enlarged image make the fine one, the loss at the start is that of unit variance, seeds decide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sge2hist.models.image.upsampler import Upsampler, UpsamplerConfig


def _model(**changes) -> Upsampler:
    torch.manual_seed(0)
    return Upsampler(UpsamplerConfig(um_per_px=2.0, widths=(16, 16), n_blocks=1, **changes)).eval()


def _images(n: int, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_coarse_image_and_detail_make_the_fine_one():
    model, fine = _model(), _images(4)
    model.set_statistics(fine)
    coarse = model.shrink(fine)
    assert coarse.shape == (4, 3, 8, 8)
    detail = model.detail(fine, coarse)
    assert detail.shape == (4, 48, 8, 8)
    assert float(detail.std()) == pytest.approx(1, abs=0.02)
    rebuilt = model.enlarge(coarse) + F.pixel_shuffle(detail, 4) * model.detail_std_C[:, None, None]
    assert torch.allclose(rebuilt, fine, atol=1e-5)


def test_a_network_that_says_nothing_has_the_loss_of_unit_variance():
    """F = 0 at the start; the target of EDM has unit variance for data of unit variance (Karras et al. 2022, appendix B.6)."""
    model, fine = _model(blur=0.0, noise=0.0), _images(64)
    model.set_statistics(fine)
    loss = model.loss(fine, torch.Generator().manual_seed(0)).detach()
    assert loss.shape == (64,)
    assert float(loss.mean()) == pytest.approx(1, abs=0.05)


def test_an_image_depends_on_its_coarse_image_and_seed_alone():
    model = _model()
    for parameter in model.unet.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(2))
    coarse = model.shrink(_images(5))
    together = model.sample(coarse, [3, 4, 5, 6, 7])
    assert together.shape == (5, 3, 32, 32)
    assert float(together.min()) >= -1
    alone = model.sample(coarse[3:4], [6])
    assert torch.allclose(together[3:4], alone, atol=1e-4)
    assert not torch.allclose(model.sample(coarse[3:4], [9]), alone, atol=1e-2)


@pytest.mark.parametrize("values", [{"factor": 1}, {"um_per_px": 0.0}])
def test_a_shape_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="factor must be at least 2"):
        UpsamplerConfig(**{"um_per_px": 2.0, **values})

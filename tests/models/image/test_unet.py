"""The U-Net: its receptive field, its features of the condition map, and its gradients."""

from __future__ import annotations

import torch

from sge2hist.models.image.unet import UNet, UNetConfig


def test_unet_with_pixel_norm_is_local():
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=(16, 16), n_blocks=1), image_channels=2, map_channels=4, vector_dim=4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, cond, noise, vector = torch.randn(1, 2, 16, 96), torch.randn(1, 4, 16, 96), torch.zeros(1), torch.zeros(1, 4)
    changed = x.clone()
    changed[..., 0] += 5
    a, b = (net(of, noise, net.read_map(cond), vector) for of in (x, changed))
    assert torch.allclose(a[..., 64:], b[..., 64:], atol=1e-5)
    assert not torch.allclose(a[..., :4], b[..., :4], atol=1e-3)


def test_features_of_the_map_equal_those_of_image_and_map_together():
    """Against the direct computation: stem over the image and the map joined, every block with its own convolution of the map."""
    torch.manual_seed(0)
    config = UNetConfig(channels=(16, 24), n_blocks=1)
    net = UNet(config, image_channels=2, map_channels=4, vector_dim=4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, cond = torch.randn(2, 2, 8, 8), torch.randn(2, 4, 8, 8)
    seen: dict[str, torch.Tensor] = {}
    joined = net.stem(torch.cat([x, cond], dim=1))
    net.down[0][0][0].register_forward_pre_hook(lambda _, given: seen.update(stem=given[0]))
    blocks = [*net.down[0], *net.down[1], *net.middle, *net.up[0], *net.up[1]]
    coarse = torch.nn.functional.avg_pool2d(cond, 2)
    expected = [block.cond_proj(coarse if block.cond_proj.out_channels == 24 else cond) for block, _ in blocks]

    def hook(block, given):
        seen[str(id(block))] = given[2].clone()

    for block, _ in blocks:
        block.register_forward_pre_hook(hook)
    with_gradients = net(x, torch.zeros(2), net.read_map(cond), torch.ones(2, 4))
    assert torch.allclose(seen["stem"], joined, atol=1e-5)
    for (block, _), share in zip(blocks, expected, strict=True):
        assert torch.allclose(seen[str(id(block))], share, atol=1e-5)
    with torch.no_grad():  # where maps are overwritten
        assert torch.allclose(net(x, torch.zeros(2), net.read_map(cond), torch.ones(2, 4)), with_gradients, atol=1e-4)


def test_bottom_blocks_have_no_skips_to_the_way_up():
    config = UNetConfig(channels=(16, 24), n_blocks=3, bottom=2)
    net = UNet(config, image_channels=2, map_channels=4, vector_dim=4)
    assert [len(blocks) for blocks in net.down] == [3, 0]
    assert [len(blocks) for blocks in net.up] == [0, 4]  # coarsest first
    assert len(net.middle) == 2
    x, cond = torch.randn(2, 2, 8, 8), torch.randn(2, 4, 8, 8)
    out = net(x, torch.zeros(2), net.read_map(cond), torch.zeros(2, 4))
    assert out.shape == x.shape
    torch.nn.init.normal_(net.head[-1].weight)
    net(x, torch.zeros(2), net.read_map(cond), torch.zeros(2, 4)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # every block is on the way

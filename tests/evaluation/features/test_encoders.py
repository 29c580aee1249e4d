"""Pathology encoders by name. Expected figures come from `timm` 1.0.31 with the same seeded weights, where stated."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from sge2hist.data.errors import InputError
from sge2hist.evaluation.features.encoders import ENCODERS, Encoder, EncoderNetwork, encoder_extractor
from sge2hist.evaluation.features.extractors import resolve_extractor, resolve_extractors
from sge2hist.evaluation.features.vit import Block, VisionTransformer, ViTShape

SMALL = ViTShape(image_px=32, patch_px=8, dim=24, depth=2, heads=2, hidden=96)
GATED = replace(SMALL, gated=True, registers=3, layer_scale=True)
# First four channels of the class token and of the last patch of the second image, from timm.
OF_TIMM = {
    "gated": (
        replace(GATED, embeds_prefix=False),
        [0.27772, -0.0324, -0.1429, -0.3772],
        [-0.10187, -0.02644, -0.05774, 0.11184],
    ),
    "positions of the prefix too": (
        GATED,
        [-0.16903, -0.03275, -0.06611, -0.32119],
        [-0.15983, -0.02287, -0.0673, 0.13305],
    ),
    "plain": (SMALL, [-0.07874, 0.00435, 0.08148, -0.00538], [-0.05413, 0.0937, -0.20691, 0.11775]),
}
MILLIONS_PUBLISHED = {"uni2-h": 681, "virchow2": 632, "h0-mini": 86}


def seeded(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(state[key].shape, generator=generator) * 0.2 for key in sorted(state)}


def small(name: str) -> Encoder:
    """The encoder with a network of two narrow blocks."""
    encoder = ENCODERS[name]
    shape = replace(encoder.shape, image_px=32, patch_px=8, dim=24, depth=2, heads=2, hidden=96)
    return replace(encoder, shape=shape, pool_dim=16, pool_heads=2)


def published(encoder: Encoder, embeds_prefix: bool = False) -> dict[str, Tensor]:
    """Seeded weights by the names of the published file."""
    weights = seeded(EncoderNetwork(encoder, replace(encoder.shape, embeds_prefix=embeds_prefix)).state_dict())
    if encoder.embedding != "attentional pool":
        return {key.removeprefix("trunk."): tensor for key, tensor in weights.items()}
    visual = {f"visual.{key.removeprefix('pool.')}": tensor for key, tensor in weights.items()}
    return visual | {"text.positional_embedding": torch.zeros(3), "visual.proj_contrast": torch.zeros(2, 2)}


def images(n: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("case", OF_TIMM)
def test_tokens_are_those_of_timm(case: str) -> None:
    shape, class_token, last_patch = OF_TIMM[case]
    network = VisionTransformer(shape)
    network.load_state_dict(seeded(network.state_dict()))
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = network.eval()(batch)
    assert tokens.shape == (2, shape.n_prefix + 16, 24)
    np.testing.assert_allclose(tokens[1, 0, :4], class_token, atol=2e-5)
    np.testing.assert_allclose(tokens[1, -1, :4], last_patch, atol=2e-5)


def test_a_block_is_that_of_torch() -> None:
    block = Block(SMALL)
    reference = nn.TransformerEncoderLayer(
        24, 2, 96, dropout=0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-6
    )
    weights = seeded(block.state_dict())
    block.load_state_dict(weights)
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
    }
    renamed = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in weights.items() if "qkv" not in k}
    renamed |= {f"self_attn.in_proj_{kind}": weights[f"attn.qkv.{kind}"] for kind in ("weight", "bias")}
    reference.load_state_dict(renamed)
    tokens = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(block.eval()(tokens), reference.eval()(tokens), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MILLIONS_PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = EncoderNetwork(ENCODERS[name], ENCODERS[name].shape)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(MILLIONS_PUBLISHED[name], abs=1)


@pytest.mark.parametrize(("name", "tokens"), [("uni2-h", [0.0]), ("h0-mini", [0.0, 12.5]), ("virchow2", [0.0, 12.5])])
def test_registers_do_not_count_in_the_embedding(name: str, tokens: list[float]) -> None:
    """Token t has the value t: with 4 registers patches are tokens 5 to 20, with 8 the class token alone is read."""
    encoder = small(name)
    network = EncoderNetwork(encoder, encoder.shape)
    n_tokens = encoder.shape.n_prefix + encoder.shape.n_patches
    counted = torch.arange(n_tokens).float().reshape(1, -1, 1).expand(1, -1, 24)
    network.trunk.forward = lambda _: counted  # type: ignore[method-assign]
    expected = np.repeat(tokens, 24)
    np.testing.assert_allclose(network(torch.zeros(1, 3, 32, 32))[0], expected)


def test_the_pool_of_conch_is_attention_of_one_query() -> None:
    """Against softmax(q k) v written out."""
    encoder = small("conch")
    network = EncoderNetwork(encoder, encoder.shape)
    weights = seeded(network.state_dict())
    network.load_state_dict(weights)
    tokens = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    pool = {k.removeprefix("pool.attn_pool_contrast."): v for k, v in weights.items() if "attn_pool" in k}

    def normed(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], pool[f"{name}.weight"], pool[f"{name}.bias"])

    bias = pool["attn.in_proj_bias"].chunk(3)
    keys = normed(tokens, "ln_k")
    q = normed(pool["query"], "ln_q") @ pool["attn.q_proj_weight"].T + bias[0]
    k, v = (keys @ pool[f"attn.{x}_proj_weight"].T + b for x, b in (("k", bias[1]), ("v", bias[2])))
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        share = torch.softmax(k[..., part] @ q[0, part] / 8**0.5, dim=1)
        heads.append((share[..., None] * v[..., part]).sum(dim=1))
    mixed = torch.cat(heads, dim=-1) @ pool["attn.out_proj.weight"].T + pool["attn.out_proj.bias"]
    expected = nn.functional.layer_norm(
        mixed, (16,), weights["pool.ln_contrast.weight"], weights["pool.ln_contrast.bias"]
    )
    with torch.no_grad():
        torch.testing.assert_close(network.pool(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("embeds_prefix", [False, True])
def test_weights_of_a_file(name: str, embeds_prefix: bool, tmp_path: Path) -> None:
    """Both formats give the features of the network on images that are resized and normalised as the encoder asks for."""
    encoder = small(name)
    weights = published(encoder, embeds_prefix)
    save_file(weights, tmp_path / "model.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "pytorch_model.bin")
    extract = encoder_extractor(encoder, str(tmp_path / "model.safetensors"))
    found = extract(images())
    np.testing.assert_array_equal(found, encoder_extractor(encoder, str(tmp_path / "pytorch_model.bin"))(images()))
    network = EncoderNetwork(encoder, replace(encoder.shape, embeds_prefix=embeds_prefix))
    network.load_state_dict(seeded(network.state_dict()))
    mean, sd = (np.array(values) for values in encoder.normalisation)
    batch = torch.from_numpy((images() / 255 - mean) / sd).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = network.eval()(batch)
    np.testing.assert_allclose(found, expected, atol=0.05 if extract.details["precision"] == "bfloat16" else 1e-5)
    assert "no commercial use" in extract.details["licence"]
    assert len(extract.details["sha256"]) == 64
    assert extract(images(side=20)).shape == found.shape


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(published(small("h0-mini")), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"weights of another network: .*in place of .* and \d+ more"):
        resolve_extractor("H0-mini", weights=str(tmp_path / "model.safetensors"))
    lacking = published(small("virchow2"))
    del lacking["norm.bias"]
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(InputError, match=r"no trunk\.norm\.bias"):
        encoder_extractor(small("virchow2"), str(tmp_path / "lacking.safetensors"))


class RunsCode:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(writer: str, tmp_path: Path) -> None:
    path, touched = tmp_path / "pytorch_model.bin", tmp_path / "touched"
    content = {"cls_token": torch.zeros(1), "more": RunsCode(touched)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="cannot be read as tensors"):
        resolve_extractor("UNI2-h", weights=str(path))
    assert not touched.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert touched.exists()  # the file would have run it


@pytest.mark.parametrize("content", [b"", b"not a tensor", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="tensors"):
            resolve_extractor("CONCH", weights=str(tmp_path / name))


def raising(error: Exception) -> Any:
    def download(repository: str, file: str) -> str:
        raise error

    return download


def answer(status: int) -> Any:
    request = SimpleNamespace(method="GET", url="")
    return SimpleNamespace(status_code=status, headers={}, request=request, text="")


@pytest.mark.parametrize(
    "error",
    [
        GatedRepoError("Access to model is restricted.", response=answer(403)),
        LocalEntryNotFoundError("offline"),
        RemoteEntryNotFoundError("no such file", response=answer(404)),
        OSError("no space left"),
    ],
    ids=["gated", "offline", "absent", "disk"],
)
def test_no_access_says_what_to_do(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising(error))
    with pytest.raises(InputError) as caught:
        resolve_extractor("virchow2")
    message = str(caught.value)
    assert message.count("\n") == 0
    for part in ("paige-ai/Virchow2", "ask for access", "hf auth login", "--extractor-weights Virchow2=FILE"):
        assert part in message


def test_the_second_name_of_the_weights_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small("uni2-h")
    path = tmp_path / "pytorch_model.bin"
    torch.save(published(encoder), path)
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if file != path.name:
            raise RemoteEntryNotFoundError("no such file", response=answer(404))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert encoder_extractor(encoder)(images()).shape == (3, 24)
    assert asked == [("MahmoodLab/UNI2-h", "model.safetensors"), ("MahmoodLab/UNI2-h", "pytorch_model.bin")]


def test_another_side_is_refused() -> None:
    with pytest.raises(InputError, match="224 px, which its network takes"):
        resolve_extractor("UNI2-h", input_px=96)


def test_several_names() -> None:
    mine = "sge2hist.evaluation.features.texture:texture_features"
    assert [extractor.name for extractor in resolve_extractors([f"texture-v1, {mine}"])] == ["texture-v1", mine]
    assert len(resolve_extractors(f"auto,{resolve_extractor('auto').name}")) == 1
    for names, weights, part in (
        ("texture-v1,texture-v1", [], "each of them once"),
        ("", [], "each of them once"),
        ("texture-v1", ["UNI2-h=x.bin"], "--extractor uni2-h"),
        ("UNI2-h", ["x.bin"], "NAME=FILE"),
        ("UNI2-h", ["densenet121-imagenet=x"], "NAME=FILE"),
        ("UNI2-h", ["uni2-H=absent.bin"], "no such file"),
    ):
        with pytest.raises(InputError, match=part):
            resolve_extractors(names, weights=weights)

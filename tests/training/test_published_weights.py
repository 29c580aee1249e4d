"""Checkpoints of the published code, made here by modules with its names and shapes: the truth is what those modules compute."""

from __future__ import annotations

import itertools
import pickle
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from sge2hist.cli.inspect import artifact_facts
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.joint_model import JointModel
from sge2hist.training.presets import model_config
from sge2hist.training.published_weights import import_weights, read_published
from sge2hist.training.warm_start import copy_weights, steps_before, warm_start_config

G, Z, T, K = 50, 128, 24, 6


class Half(nn.Module):
    """Encoder or decoder: hidden layers with ReLU, and its heads."""

    def __init__(self, widths: tuple[int, ...], heads: dict[str, int]) -> None:
        super().__init__()
        self.hidden_layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        for name, width in heads.items():
            setattr(self, name, nn.Linear(widths[-1], width))

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden_layers:
            x = layer(x).relu()
        return x


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Half((G, 2048, 512), {"fc_mean": Z, "fc_logvar": Z})
        self.decoder = Half((Z, 512, 2048), {"fc_output": G})


class WholeModel(nn.Module):
    def __init__(self, n_type: int = T) -> None:
        super().__init__()
        self.nn_model = nn.ModuleDict({"cond_emb": nn.Linear(Z, 256)})
        for name in ("alpha_t", "sqrtab", "sqrtmab"):
            self.register_buffer(name, torch.rand(1001))
        self.pi = nn.Parameter(torch.rand(K) + 0.1)
        self.mu = nn.Parameter(torch.randn(K, n_type))
        self.logvar = nn.Parameter(torch.randn(K, n_type).clamp(-2, 2))
        self.vae = Autoencoder()


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return WholeModel()


def saved(module_or_state, path):
    state = module_or_state.state_dict() if isinstance(module_or_state, nn.Module) else module_or_state
    torch.save(state, path)
    return path


def imported(path, folder, **options):
    import_weights(path, folder, log=lambda _: None, **options)
    return ModelBundle.load(folder, for_training=True)


@pytest.mark.parametrize("layout", ["whole", "alone"])
def test_the_encoder_computes_what_the_published_one_does(whole, tmp_path, layout):
    module = whole if layout == "whole" else whole.vae
    bundle = imported(saved(module, tmp_path / "x.pt"), tmp_path / "m")
    counts = torch.poisson(torch.full((7, G), 3.0), generator=torch.Generator().manual_seed(0))
    hidden = whole.vae.encoder.hidden(counts)
    posterior = bundle.model.gene.encode(counts)
    torch.testing.assert_close(posterior.mean_NZ, whole.vae.encoder.fc_mean(hidden), atol=1e-5, rtol=1e-5)
    log_var = whole.vae.encoder.fc_logvar(hidden).clamp(-10, 4)
    torch.testing.assert_close(posterior.log_var_NZ, log_var, atol=1e-5, rtol=1e-5)
    z = torch.randn(7, Z)
    wanted = whole.vae.decoder.fc_output(whole.vae.decoder.hidden(z))
    torch.testing.assert_close(bundle.model.gene.decoder(z), wanted, atol=1e-5, rtol=1e-5)
    mixture = bundle.model.gene.mixture
    assert bool(mixture.initialised) == (layout == "whole")
    if layout == "whole":
        torch.testing.assert_close(mixture.logits_K.softmax(0), whole.pi / whole.pi.sum())
        torch.testing.assert_close(mixture.means_KT, whole.mu)
        torch.testing.assert_close(mixture.log_vars_KT, whole.logvar)


def test_the_split_of_a_whole_model_is_that_of_its_mixture(tmp_path):
    bundle = imported(saved(WholeModel(n_type=16), tmp_path / "x.pt"), tmp_path / "m")
    assert (bundle.config.gene.n_type, bundle.config.gene.n_micro) == (16, 112)


def test_what_is_missing_is_said(whole, tmp_path):
    state = whole.state_dict() | {"pi": torch.zeros(K)}
    lines: list[str] = []
    import_weights(saved(state, tmp_path / "x.pt"), tmp_path / "m", log=lines.append)
    text = "\n".join(lines)
    for part in ("whole model", "never fitted", "image network (2 tensors)", "--genes", "--warm-start"):
        assert part in text
    assert not ModelBundle.load(tmp_path / "m", for_training=True).model.gene.mixture.initialised
    assert dict(artifact_facts(tmp_path / "m"))["latent"] == "24 + 104 dims"


def test_imported_weights_are_a_start_and_no_model(whole, tmp_path):
    bundle = imported(saved(whole, tmp_path / "x.pt"), tmp_path / "m")
    with pytest.raises(InputError, match="--preset paper --warm-start"):
        ModelBundle.load(tmp_path / "m")
    shape = model_config("paper", n_genes=G, n_types=3, um_per_px=1.0, patch_px=64, cell_spacing_um=8.0, n_slides=1)
    shape = replace(shape, image=replace(shape.image, unet=bundle.config.image.unet))  # of placeholder size
    config = warm_start_config(shape, bundle, refit_genes=False)
    model = JointModel(config)
    assert copy_weights(model, bundle.genes, bundle, "data") == []
    for name, value in bundle.model.gene.state_dict().items():
        torch.testing.assert_close(model.gene.state_dict()[name], value, msg=name)
    assert steps_before(bundle, config, bundle.genes, ("gene",), False) == {}
    with pytest.raises(InputError, match="other genes"):
        copy_weights(model, GenePanel([f"other{i}" for i in range(G)]), bundle, "data")
    spatial = model_config("tiny", n_genes=G, n_types=3, um_per_px=1.0, patch_px=64, cell_spacing_um=8.0, n_slides=1)
    with pytest.raises(InputError, match="preset paper"):
        warm_start_config(spatial, bundle, refit_genes=False)


def test_wrappers_of_training_scripts_are_opened(whole, tmp_path):
    state = OrderedDict((f"module.{name}", value) for name, value in whole.vae.state_dict().items())
    assert not read_published(saved({"state_dict": state, "epoch": 3}, tmp_path / "x.pt")).is_whole


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/evil_of_a_checkpoint", "w"))


WRONG = {
    "a program": (lambda s: {**s, "x": Evil()}, "not tensors in plain containers"),
    "a module": (lambda s: nn.Linear(2, 2), "not tensors in plain containers"),
    "a list": (lambda s: [1, 2], "a list, or nothing"),
    "text": (lambda s: {**s, "x": "text"}, "'x' of type str"),
    "whole numbers": (lambda s: {**s, "x": torch.ones(3, dtype=torch.int64)}, "'x' of type Tensor"),
    "larger than the file": (lambda s: {**s, "x": torch.ones(1).expand(1 << 40)}, "'x' of type Tensor"),
    "a layer missing": (lambda s: {k: v for k, v in s.items() if "fc_mean" not in k}, "no tensor encoder.fc_mean"),
    "another width": (lambda s: {**s, "encoder.fc_mean.bias": torch.ones(64)}, r"fc_mean.bias of shape \(64,\)"),
    "not finite": (lambda s: {**s, "encoder.fc_mean.bias": torch.full((Z,), torch.nan)}, "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused(whole, tmp_path, case):
    change, message = WRONG[case]
    path = tmp_path / "x.pt"
    torch.save(change(whole.vae.state_dict()), path)
    with pytest.raises(InputError, match=message):
        import_weights(path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_plain_pickles_and_damage_are_refused(whole, tmp_path):
    path = saved(whole.vae, tmp_path / "x.pt")
    cut = path.read_bytes()[:100_000]
    for content in (pickle.dumps({"x": Evil()}, protocol=2), cut, b"", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not tensors in plain containers"):
            read_published(path)
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "none.pt")


def test_the_command_takes_names_of_genes(whole, tmp_path):
    from sge2hist.cli.main import app

    path = saved(whole.vae, tmp_path / "x.pt")
    GenePanel([f"ENSMUSG{i}" for i in range(G)]).to_csv(tmp_path / "genes.csv")
    words = ["import-weights", str(path), "-o", str(tmp_path / "m"), "--genes", str(tmp_path / "genes.csv")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert ModelBundle.load(tmp_path / "m", for_training=True).genes.ids[1] == "ENSMUSG1"
    GenePanel(["one"]).to_csv(tmp_path / "genes.csv")
    with pytest.raises(InputError, match="1 genes"):
        import_weights(path, tmp_path / "n", genes=tmp_path / "genes.csv")

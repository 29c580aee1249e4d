"""Training that starts from a model: weights are taken over, stages that are done are skipped, misfits are refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import STAGE_SHARES, TrainConfig
from sge2hist.training.finetune.adversarial_decoder import with_decoder_noise
from sge2hist.training.train import train
from sge2hist.training.warm_start import copy_weights


def test_goes_on_with_the_joint_stage_alone_on_the_same_data(tiny_paired, tiny_model, tmp_path):
    still = TrainConfig(
        preset="tiny", mixed_precision="no", warm_start=str(tiny_model), steps=2, learning_rate=1e-12, seed=4
    )
    logged: list[str] = []
    bundle = train(tiny_paired, tmp_path / "b.model", still, log=logged.append)
    assert any("without autoencoder, gene, mixture" in line for line in logged)
    assert [name for name, s in bundle.provenance["stage_seconds"].items() if s > 0] == ["joint"]
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, tmp_path / "b.model"))
    for name, value in before.items():
        if name.startswith("image."):
            assert torch.allclose(value, after[name], atol=1e-6), name


def test_decoder_noise_is_kept(tiny_paired, tiny_model, tmp_path):
    start = with_decoder_noise(ModelBundle.load(tiny_model), 4, seed=0)
    start.save(tmp_path / "a.model")
    on = TrainConfig(preset="tiny", mixed_precision="no", warm_start=str(tmp_path / "a.model"), steps=2)
    bundle = train(tiny_paired, tmp_path / "b.model", on, log=lambda _: None)
    before, after = (b.model.image.autoencoder.noise_proj.weight for b in (start, bundle))
    assert torch.allclose(before, after, atol=1e-6)


def test_with_other_genes_the_gene_model_is_trained(tiny_model):
    start = ModelBundle.load(tiny_model)
    blank = ModelBundle.load(tiny_model)
    with torch.no_grad():
        for parameter in blank.model.parameters():
            parameter.zero_()
    blank.genes.ids[0] = "ENSG_OTHER"
    assert copy_weights(blank.model, blank.genes, start, start.provenance["data_fingerprint"]) == []
    assert torch.equal(blank.model.image.unet.stem.weight, start.model.image.unet.stem.weight)
    assert not blank.model.gene.mixture.means_KT.any()


def test_refitted_genes_keep_the_image_networks(tiny_paired, tiny_model, tmp_path):
    start, blank = ModelBundle.load(tiny_model), ModelBundle.load(tiny_model)
    with torch.no_grad():
        for parameter in blank.model.parameters():
            parameter.zero_()
    skipped = copy_weights(blank.model, blank.genes, start, start.provenance["data_fingerprint"], refit_genes=True)
    assert skipped == ["autoencoder"]
    assert torch.equal(blank.model.image.unet.stem.weight, start.model.image.unet.stem.weight)
    assert not any(parameter.any() for parameter in blank.model.gene.parameters())
    with pytest.raises(InputError, match="--refit-genes without --warm-start"):
        TrainConfig(refit_genes=True)


def test_a_kept_gene_model_keeps_its_pooling_and_a_refitted_one_takes_the_new(tiny_paired, tiny_model, tmp_path):
    quick = {"preset": "tiny", "mixed_precision": "no", "steps": 2}
    refitted = TrainConfig(**quick, warm_start=str(tiny_model), refit_genes=True, pool_um=24.0)
    assert train(tiny_paired, tmp_path / "pooled.model", refitted, log=lambda _: None).config.gene.pool_um == 24
    kept = TrainConfig(**quick, warm_start=str(tmp_path / "pooled.model"))
    bundle = train(tiny_paired, tmp_path / "kept.model", kept, log=lambda _: None)
    assert bundle.config.gene.pool_um == 24
    assert bundle.provenance["stage_seconds"]["gene"] == 0


def test_a_gene_model_is_kept_whether_or_not_labels_are_used(tiny_paired, tiny_model, tmp_path):
    """Without labels a new one would have more components."""
    config = TrainConfig(preset="tiny", mixed_precision="no", steps=2, warm_start=str(tiny_model), use_labels=False)
    bundle = train(tiny_paired, tmp_path / "unlabelled.model", config, log=lambda _: None)
    assert bundle.provenance["stage_seconds"]["gene"] == bundle.provenance["stage_seconds"]["expression"] == 0
    assert bundle.config.gene == ModelBundle.load(tiny_model).config.gene


def test_a_model_of_the_same_preset_keeps_its_networks_when_the_preset_has_others(tiny_paired, tiny_model, tmp_path):
    image = ModelBundle.load(tiny_model).config.image
    older = dataclasses.replace(
        image,
        unet=dataclasses.replace(image.unet, n_blocks=2, bottom=0),
        diffusion=dataclasses.replace(image.diffusion, sigma_log_std=1.1),
    )
    with torch.random.fork_rng():
        start = ModelBundle.load(tiny_model)
        start.model = JointModel(dataclasses.replace(start.config, image=older))
        start.model.gene.load_state_dict(ModelBundle.load(tiny_model).model.gene.state_dict())
    start.save(tmp_path / "older.model")
    config = TrainConfig(preset="tiny", mixed_precision="no", steps=2, warm_start=str(tmp_path / "older.model"))
    assert train(tiny_paired, tmp_path / "on.model", config, log=lambda _: None).config.image == older


def test_refuses_another_shape_and_a_missing_model(tiny_paired, tiny_model, tmp_path):
    start, other = ModelBundle.load(tiny_model), ModelBundle.load(tiny_model)
    other.model.config = dataclasses.replace(other.config, um_per_px=0.5)
    with pytest.raises(InputError, match=r"at 2 um/px to start from"):
        copy_weights(other.model, other.genes, start, "")
    with pytest.raises(InputError, match="no model"):
        train(tiny_paired, tmp_path / "c.model", TrainConfig(preset="tiny", warm_start=str(tmp_path / "nothing")))
    assert not (tmp_path / "c.model").exists()


def test_skipped_stages_leave_their_time_to_the_others():
    config = TrainConfig(hours=1.0)
    assert config.budget_s == 3600
    assert config.shares() == STAGE_SHARES
    assert config.shares(["autoencoder", "gene", "mixture", "expression"]) == {"joint": STAGE_SHARES["joint"]}


def test_steps_of_the_start_count_where_its_networks_are_kept(tiny_paired, tiny_model, tmp_path):
    """The start had 20 joint steps of 10 that are useful; a refitted gene model needs its own."""
    quick = {"preset": "tiny", "mixed_precision": "no", "steps": 2, "warm_start": str(tiny_model)}
    kept = train(tiny_paired, tmp_path / "kept.model", TrainConfig(**quick), log=lambda _: None).provenance
    assert kept["stage_steps"]["joint"] == 22
    assert kept["undertrained"] == {}
    logged: list[str] = []
    refitted = train(tiny_paired, tmp_path / "r.model", TrainConfig(**quick, refit_genes=True), log=logged.append)
    assert refitted.provenance["undertrained"] == {"joint": {"steps": 2, "useful": 10}}
    assert "warning: undertrained: 2 of some 10 steps (joint)" in logged
    assert "Undertrained: 2 of some 10 steps (joint)" in (tmp_path / "r.model" / "README.md").read_text()

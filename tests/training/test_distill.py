"""Distillation of a tiny model: it writes a model that draws in few evaluations, resumes exactly, refuses what does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.models.bundle import ModelBundle
from sge2hist.training.finetune.base import check_tunable
from sge2hist.training.finetune.consistency import DistillConfig, distill
from tests.training.killing import check_a_kill_changes_nothing

CONFIG = DistillConfig(steps=16, batch=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def student(tiny_paired, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("distilled") / "fast.model"
    distill(ModelBundle.load(tiny_model), tiny_paired, output, CONFIG, log=lambda _: None)
    return output


def test_the_student_draws_in_one_evaluation_and_keeps_what_is_not_tuned(student, tiny_model, tiny_paired):
    model = SGE2Hist.from_pretrained(student)
    assert (model.bundle.config.sampler.sampler, model.bundle.config.sampler.n_steps) == ("consistency", 1)
    images = model.generate_from_genes(tiny_paired.adata()[:3].copy())
    assert images.shape == (3, 1, 32, 32, 3)
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, student))
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", "condition"}
    assert model.bundle.provenance["teacher"] == ModelBundle.load(tiny_model).fingerprint


def test_guidance_that_is_asked_of_a_student_acts_on_its_one_jump(student, tiny_paired):
    model, cells = SGE2Hist.from_pretrained(student), tiny_paired.adata()[:3].copy()
    settings = [dataclasses.replace(model.bundle.config.sampler, guidance=weight) for weight in (1.0, 3.0)]
    plain, guided = (model.generate_from_genes(cells, sampler=sampler) for sampler in settings)
    assert (plain != guided).any()


def test_a_killed_distillation_ends_with_the_same_weights(tiny_model, tiny_paired, tmp_path):
    teacher, longer = ModelBundle.load(tiny_model), dataclasses.replace(CONFIG, steps=120)
    check_a_kill_changes_nothing(
        lambda output, log: distill(teacher, tiny_paired, output, longer, log=log),
        tmp_path,
        "resuming distill at step 100",
    )


def test_refuses_a_published_model_and_foreign_genes(tiny_model, tiny_paired, monkeypatch):
    teacher = ModelBundle.load(tiny_model)
    vector = dataclasses.replace(teacher.config.image.condition, form="vector")
    image = dataclasses.replace(teacher.config.image, condition=vector)
    published = dataclasses.replace(teacher)
    published.model = ModelBundle.load(tiny_model).model
    published.model.config = dataclasses.replace(teacher.config, image=image)
    with pytest.raises(InputError, match="placed cells"):
        check_tunable(published, tiny_paired)
    teacher.genes = GenePanel(["ENSG_NONE", *teacher.genes.ids[1:]])
    with pytest.raises(InputError, match="ENSG_NONE"):
        check_tunable(teacher, tiny_paired)
    with pytest.raises(InputError, match="no length"):
        DistillConfig(steps=0)

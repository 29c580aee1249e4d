"""Every wrong argument of the public interface is an `InputError`: settings, and arguments of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import sge2hist
from sge2hist import (
    EvaluateConfig,
    GeneratedSet,
    InputError,
    PairedDataset,
    PrepareConfig,
    SamplerConfig,
    SGE2Hist,
    TrainConfig,
)
from sge2hist.data.errors import fitted
from sge2hist.generation.slide.request import SlideConfig
from sge2hist.pairing.config import CellsConfig
from sge2hist.training.finetune.adversarial_decoder import SharpenConfig
from sge2hist.training.finetune.consistency import DistillConfig
from sge2hist.training.finetune.guidance_distillation import GuidanceDistillationConfig
from sge2hist.training.finetune.upsampler import UpsamplerTrainConfig

SETTINGS = {
    SamplerConfig: {},
    TrainConfig: {},
    PrepareConfig: {},
    CellsConfig: {},
    EvaluateConfig: {},
    SlideConfig: {},
    SharpenConfig: {},
    DistillConfig: {},
    GuidanceDistillationConfig: {},
    UpsamplerTrainConfig: {"um_per_px": 0.25},
}
"""Settings classes that users make -> the fields that have no default."""
FIELDS = [(config, field.name, str(field.type)) for config in SETTINGS for field in fields(config)]


@pytest.mark.parametrize(("config", "name", "annotation"), FIELDS)
def test_a_setting_of_a_wrong_type_is_named(config, name, annotation):
    wrong = [object(), np.zeros(3), float("nan"), {3: object()}]
    wrong += [] if "str" in annotation else ["many"]
    wrong += [] if "int" in annotation or "float" in annotation else [3]
    wrong += [] if "bool" in annotation else [True]
    wrong += [] if "float" in annotation else [2.5]
    for value in wrong:
        with pytest.raises(
            InputError, match=rf"{config.__name__}: found {name} = .*expected .*help\({config.__name__}"
        ):
            config(**SETTINGS[config] | {name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampler": "magic"},
        {"n_steps": 0},
        {"guidance": float("inf")},
        {"guidance_interval": (4.5, 1.2)},
        {"guidance_interval": (1.0, 2.0, 3.0)},
        {"eta": -1.0},
        {"sigma_range": (20.0, 0.3)},
        {"sigma_range": (0.0, 0.3)},
    ],
)
def test_sampler_settings_out_of_range(wrong):
    with pytest.raises(InputError, match="; expected"):
        SamplerConfig(**wrong)


def test_numbers_of_numpy_and_lists_become_what_is_annotated():
    config = SamplerConfig(n_steps=np.int64(3), guidance=np.float32(2.0), guidance_interval=[0, 2])
    assert config == SamplerConfig(n_steps=3, guidance=2.0, guidance_interval=(0, 2))
    assert type(config.n_steps) is int
    assert type(config.guidance_interval) is tuple
    assert TrainConfig(warm_start=Path("a.model")).warm_start == "a.model"
    assert CellsConfig(labels=Path("a.tif")).labels == Path("a.tif")
    assert PrepareConfig(fractions=[0.5, 0.2, 0.3]).fractions == (0.5, 0.2, 0.3)
    assert fitted({"a": [1, 2]}, dict[str, tuple[float, float]]) == {"a": (1, 2)}


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(InputError, match=r"(?s)2 problems.*seed.*max_cells|2 problems.*max_cells.*seed"):
        EvaluateConfig(seed="one", max_cells=2.5)


@pytest.fixture(scope="module")
def calls(tiny_paired, tiny_model, tmp_path_factory) -> dict[str, tuple[Callable, dict]]:
    """Name -> a public function and arguments with which it works."""
    model, folder = SGE2Hist.from_pretrained(tiny_model), tmp_path_factory.mktemp("outputs")
    cells = tiny_paired.adata()
    images = np.zeros((3, 8, 8, 3), np.uint8)
    (folder / "file").touch()
    return {
        "contact_sheet": (sge2hist.contact_sheet, {"images": images}),
        "ContactSheet.save": (sge2hist.contact_sheet(images).save, {"path": folder / "sheet.png"}),
        "prepare": (sge2hist.prepare, {"inputs": folder / "none", "output": folder / "a.paired"}),
        "evaluate": (
            sge2hist.evaluate,
            {"generated": folder / "none", "data": tiny_paired, "output": folder / "report"},
        ),
        "generate_slide": (
            sge2hist.generate_slide,
            {"model": model, "source": tiny_paired, "output": folder / "s.generated", "region_um": (0, 0, 0, 0)},
        ),
        "from_pretrained": (SGE2Hist.from_pretrained, {"name": tiny_model}),
        "train": (SGE2Hist.train, {"dataset": tiny_paired, "output": folder / "file" / "a.model"}),
        "to": (model.to, {"device": "cpu"}),
        "save_pretrained": (model.save_pretrained, {"path": folder / "copy.model"}),
        "embed": (model.embed, {"adata": cells, "force": True}),
        "generate_from_genes": (model.generate_from_genes, {"cells": tiny_paired, "rows": [0]}),
        "generate_from_types": (model.generate_from_types, {"names": "alpha", "n": 1}),
        "dose": (
            model.dose,
            {"cells": tiny_paired, "cell": tiny_paired.obs.index[0], "gene": tiny_paired.genes.symbols[0]},
        ),
        "PairedDataset.open": (PairedDataset.open, {"path": tiny_paired.path}),
        "rows": (tiny_paired.rows, {}),
        "patch": (tiny_paired.patch, {"i": 0}),
        "patches": (tiny_paired.patches, {"rows": [0]}),
        "counts": (tiny_paired.counts, {"rows": [0]}),
        "GeneratedSet.open": (GeneratedSet.open, {"path": folder / "none"}),
    }


NAMES = [
    "contact_sheet",
    "ContactSheet.save",
    "prepare",
    "evaluate",
    "generate_slide",
    "from_pretrained",
    "train",
    "to",
    "save_pretrained",
    "embed",
    "generate_from_genes",
    "generate_from_types",
    "dose",
    "PairedDataset.open",
    "rows",
    "patch",
    "patches",
    "counts",
    "GeneratedSet.open",
]
WRONG = [object(), np.array([[1.5, float("nan")]]), [[1], [1, 2]], -1, float("nan"), "wrong", b"x", {}, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_an_input_error(calls, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wrong").touch()  # a file: no output that could be written
    function, given = calls[name]
    for parameter in signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        for number, wrong in enumerate(WRONG):
            try:
                function(**given | {parameter.name: wrong})
            except InputError:
                pass
            except Exception as error:
                pytest.fail(f"{name}({parameter.name}={wrong!r}): {type(error).__name__}: {error}")
            else:
                assert number >= 3, f"{name}({parameter.name}={wrong!r}) was accepted"

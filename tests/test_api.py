"""The Python interface: every wrong argument is one clear error; devices, progress bars, public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sge2hist
from sge2hist import InputError, SamplerConfig, SGE2Hist


@pytest.fixture(scope="module")
def model(tiny_model) -> SGE2Hist:
    return SGE2Hist.from_pretrained(tiny_model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": [-1]},
        {"rows": [10**7]},
        {"rows": []},
        {"rows": 3},
        {"rows": [[0, 1]]},
        {"rows": ["a"]},
        {"n_samples": 0},
        {"n_samples": 1.5},
        {"seed": -1},
    ],
)
def test_wrong_cells(model, tiny_paired, wrong):
    with pytest.raises(InputError):
        model.generate_from_genes(tiny_paired, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": -1},
        {"seed": -1},
        {"z2": np.zeros(3)},
        {"z2": "mine"},
        {"names": []},
        {"names": ["alpha", "Alpha"]},
        {"names": "delta"},
        {"names": 3},
        {"names": [1, 2]},
        {"names": None},
        {"context": "crowd"},
        {"sampler": "magic"},
        {"sampler": 12},
        {"sampler": {"n_steps": 3}},
    ],
)
def test_wrong_types(model, wrong):
    with pytest.raises(InputError):
        model.generate_from_types(**({"names": "alpha", "n": 1} | wrong))


def test_a_mask_chooses_cells(model, tiny_paired):
    mask = np.zeros(len(tiny_paired), bool)
    mask[[3, 5]] = True
    assert np.array_equal(
        model.generate_from_genes(tiny_paired, rows=mask), model.generate_from_genes(tiny_paired, rows=[3, 5])
    )


def test_wrong_objects_name_the_call_that_opens_them(model, tiny_paired, tmp_path):
    with pytest.raises(InputError, match=r"PairedDataset.open\('kidney.paired'\)"):
        model.generate_from_genes("kidney.paired")
    with pytest.raises(InputError, match=r"anndata.read_h5ad\('cells.h5ad'\)"):
        model.generate_from_genes("cells.h5ad")
    with pytest.raises(InputError, match=r"anndata.read_h5ad\('cells.h5ad'\)"):
        model.embed("cells.h5ad")
    with pytest.raises(InputError, match=r"PairedDataset.open\('kidney.paired'\)"):
        SGE2Hist.train(Path("kidney.paired"), tmp_path / "m.model")
    with pytest.raises(InputError, match="TrainConfig"):
        SGE2Hist.train(tiny_paired, tmp_path / "m.model", {"preset": "tiny"})
    with pytest.raises(InputError, match="a folder or a name"):
        SGE2Hist.from_pretrained(3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5, None])
def test_wrong_devices(model, tiny_model, device):
    with pytest.raises(InputError, match="cpu, cuda or auto"):
        SGE2Hist.from_pretrained(tiny_model, device=device)
    with pytest.raises(InputError, match="device='auto'"):
        model.to(device)
    with pytest.raises(InputError, match="cpu, cuda or auto"):
        model.device = device
    assert model.device == torch.device("cpu")


def test_devices_by_name_and_object(tiny_model):
    model = SGE2Hist.from_pretrained(tiny_model, device="auto")
    model.device = "cpu"
    assert model.to(torch.device("cpu")) is model
    assert str(model.device) == "cpu"


def test_a_sampler_by_name_keeps_the_other_settings(model):
    config = model.bundle.config.sampler
    by_name = model.generate_from_types("alpha", n=1, sampler="euler")
    settings = SamplerConfig(
        sampler="euler", n_steps=config.n_steps, guidance=config.guidance, guidance_interval=config.guidance_interval
    )
    assert np.array_equal(by_name, model.generate_from_types("alpha", n=1, sampler=settings))


def test_bars_are_shown_when_asked_for(model, capsys):
    plain = model.generate_from_types("alpha", n=2)
    assert capsys.readouterr().err == ""
    shown = model.generate_from_types("alpha", n=2, progress=True)
    captured = capsys.readouterr()
    assert "generating" in captured.err
    assert captured.out == ""
    assert np.array_equal(plain, shown)


def test_public_names_are_lazy_typed_and_documented():
    code = "import sge2hist, sys; print({'torch', 'anndata', 'pandas', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    folder = Path(sge2hist.__file__).parent
    assert (folder / "py.typed").is_file()
    for_editors = {
        (alias.asname, node.module)
        for block in ast.parse((folder / "__init__.py").read_text()).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_editors == set(sge2hist._HOMES.items())
    assert {*sge2hist._HOMES, "__version__"} == set(sge2hist.__all__) <= set(dir(sge2hist))
    for name in sge2hist._HOMES:
        assert len(getattr(sge2hist, name).__doc__) > 20


USER_SCRIPT = """
import sge2hist
from sge2hist import PairedDataset, SamplerConfig, SGE2Hist, TrainConfig

data = sge2hist.prepare("outs", "kidney.paired", images="he.tif", bin_um=16)
model = SGE2Hist.train(PairedDataset.open(data.path), "kidney.model", TrainConfig(preset="small", hours=1.5))
model.device = "cuda"
images = model.generate_from_types("Podocyte", n=4, sampler=SamplerConfig(n_steps=8))
sge2hist.contact_sheet(images).save("sheet.png")
sge2hist.generate_slide(model, data, "slide.generated", region_um=(0, 0, 500, 500))
sge2hist.evaluate("kidney.generated", data, "report")
wrong: int = model.generate_from_types(3)
"""


@pytest.mark.slow  # reads all sources once: 20 s
def test_a_users_script_is_checked_by_mypy(tmp_path):
    (tmp_path / "script.py").write_text(USER_SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "script.py"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    lines = USER_SCRIPT.splitlines()
    wrong = 1 + next(number for number, line in enumerate(lines) if line.startswith("wrong"))
    errors = [line for line in checked.stdout.splitlines() if "error:" in line and line.startswith("script.py")]
    assert len(errors) == 2, checked.stdout + checked.stderr
    assert all(line.startswith(f"script.py:{wrong}:") for line in errors)

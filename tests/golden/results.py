"""What the shipped model generates and what two presets lose in training, on inputs made here: float32, one thread.

`python -m tests.golden.results FILE` writes them. ``v0_1.npz`` was written so by version 0.1.0; `test_golden.py` compares.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import anndata
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix

from sge2hist import SGE2Hist
from sge2hist.data.generated import SLIDE_NAME
from sge2hist.generation.applicability import ApplicabilityWarning
from sge2hist.generation.slide.render import generate_slide
from sge2hist.models.joint_model import JointModel
from sge2hist.training import presets
from sge2hist.training.config import TrainConfig
from sge2hist.training.progress import Meter
from sge2hist.training.train import train
from tests.fixtures.paired import write_tiny_paired

SPACING_UM = 16.0
N_STEPS = 50


def processor() -> str:
    """What the rounding of float32 depends on: the processor, its instruction set, and the version of torch."""
    wanted = ("vendor_id", "cpu family", "model", "stepping")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else [platform.processor()]
    named = {line.split(":")[0].strip(): line.split(":")[-1].strip() for line in lines}
    cpu = " ".join(named.get(key, "?") for key in wanted)
    return f"{cpu} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """float32 on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with mock.patch("sge2hist.devices.has_fast_bfloat16", return_value=False), warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplicabilityWarning)  # the made-up cells are novel to the shipped model
            yield
    finally:
        torch.set_num_threads(threads)


def kidney() -> SGE2Hist:
    """The shipped model without the gate and the correction that it got after version 0.1; its other weights are the same."""
    bundle = SGE2Hist.from_pretrained("pretrained:kidney").bundle
    image = bundle.config.image
    assert image.autoencoder is not None
    before = replace(image.autoencoder, noise_gate=False, correction="")
    model = JointModel(replace(bundle.config, image=replace(image, autoencoder=before)))
    own = set(model.state_dict())
    model.load_state_dict({name: value for name, value in bundle.model.state_dict().items() if name in own})
    return SGE2Hist(bundle=replace(bundle, model=model.eval()))


def cells(model: SGE2Hist, side: int = 12) -> anndata.AnnData:
    """`side` x `side` bins of 16 um with Poisson counts; each bin expresses the markers of one type more."""
    rng = np.random.default_rng(7)
    genes = model.bundle.genes
    n = side * side
    rate = np.full((n, len(genes)), 0.05)
    for i in range(n):
        row = model.types.rows[(i // 3) % len(model.types.rows)]
        rate[i, [genes.symbols.index(g) for g in row.markers if g in genes.symbols]] = 8.0
    counts = rng.poisson(rate).astype(np.int32)
    row, column = np.divmod(np.arange(n), side)
    obs = pd.DataFrame(
        {"x_um": (column + 0.5) * SPACING_UM, "y_um": (row + 0.5) * SPACING_UM}, index=[f"bin_{i}" for i in range(n)]
    )
    var = pd.DataFrame({"symbol": genes.symbols}, index=genes.ids)
    return anndata.AnnData(X=csr_matrix(counts), obs=obs, var=var)


def patches() -> np.ndarray:
    """Patches from RNA, in both contexts of cells without neighbours: uint8 [8, P, P, 3]."""
    model = kidney()
    some = cells(model)[[0, 40]]
    generated = [
        model.generate_from_genes(some, n_samples=2, seed=3, context=c, force=True) for c in ("field", "centre")
    ]
    return np.concatenate([d.reshape(-1, *d.shape[2:]) for d in generated])


def types() -> np.ndarray:
    """Patches by type name: uint8 [4, P, P, 3]."""
    model = kidney()
    return model.generate_from_types(["Podocyte", "Proximal tubule"], n=2, seed=5, context="homotypic")


def slide_region() -> np.ndarray:
    """A region of 120 x 100 um inside the cells: uint8 [50, 60, 3]."""
    import tifffile

    model = kidney()
    region_um = (40.0, 40.0, 120.0, 100.0)
    with tempfile.TemporaryDirectory() as folder:
        slide = generate_slide(
            model, cells(model), Path(folder) / "s.generated", region_um=region_um, seed=11, force=True
        )
        return tifffile.imread(slide.path / SLIDE_NAME)


def losses(name: str) -> dict[str, np.ndarray]:
    """Loss of each of the first 50 steps of every stage of a preset, on a tiny dataset."""
    found: dict[str, list[float]] = {}
    add, report = Meter.add, Meter.report
    pending: list[float] = []

    def adding(self: Meter, terms: dict[str, float], items: int) -> None:
        pending.append(terms["loss"])
        add(self, terms, items)

    def reporting(self: Meter, stage: str, *rest: object, **more: object) -> object:
        found.setdefault(stage, []).extend(pending)
        pending.clear()
        return report(self, stage, *rest, **more)  # type: ignore[arg-type]

    preset = presets.PRESETS[name]
    short = replace(
        preset,
        ae_steps=min(preset.ae_steps, N_STEPS),
        gene_steps=N_STEPS,
        mixture_steps=N_STEPS,
        joint_steps=N_STEPS,
        batch=8 if name == "small" else 1,
        ae_batch=8,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Meter, "add", adding),
        mock.patch.object(Meter, "report", reporting),
        mock.patch.dict(presets.PRESETS, {name: short}),
    ):
        dataset = write_tiny_paired(Path(folder) / "tiny.paired")
        config = TrainConfig(preset=name, seed=2, mixed_precision="no", patch_px=32, um_per_px=2.0)
        train(dataset, Path(folder) / "m.model", replace(config), log=lambda _: None)
    return {f"{name}/{stage}": np.asarray(values) for stage, values in found.items()}


def main(file: Path) -> None:
    """Write everything to `file`."""
    with plain_arithmetic():
        results = {"patches": patches(), "types": types(), "slide_region": slide_region()}
        results |= losses("small") | losses("paper")
    np.savez_compressed(file, processor=np.array(processor()), **results)
    for name, value in results.items():
        print(name, value.shape, float(value.astype(float).mean()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

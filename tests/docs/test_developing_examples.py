"""The examples of the pages for developers: a reader and a sampler, written as those pages say."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import sge2hist
from fixtures.tissue import make_tissue, write_image
from sge2hist import readers
from sge2hist.data.errors import InputError
from sge2hist.readers import detect, open_sections

ROOT = Path(__file__).parents[2]
DEVELOPING = ROOT / "docs" / "developing"


def code_of(page: str) -> dict[str, object]:
    """Run the Python blocks of a page in one namespace and return it."""
    text = (DEVELOPING / page).read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def csv_cells(monkeypatch):
    """The reader of the page, entered where the page says: a module of the format's name, `FORMATS`, `_OPTIONS`."""
    module = ModuleType("sge2hist.readers.csv_cells")
    module.read = code_of("add-a-reader.md")["read"]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(detect.FORMATS, "csv_cells", "csv files of positions and counts")
    monkeypatch.setitem(readers._OPTIONS, "csv_cells", ("um_per_px",))


def test_the_reader_reads(tmp_path, csv_cells):
    tissue = make_tissue()
    cells = pd.Index([f"c{i}" for i in range(len(tissue))], name="cell")
    pd.DataFrame(tissue.centre_xy_px, cells, ["x_px", "y_px"]).to_csv(tmp_path / "positions.csv")
    pd.DataFrame(tissue.counts_NG, cells, tissue.gene_ids).to_csv(tmp_path / "counts.csv")
    image = write_image(tissue, tmp_path / "he.tif")
    (section,) = open_sections(tmp_path, format="csv_cells", image=image, um_per_px=0.5)
    np.testing.assert_array_equal(section.read_counts(None, None).toarray(), tissue.counts_NG)
    np.testing.assert_allclose(section.centre_xy_px, tissue.centre_xy_px)
    with pytest.raises(InputError, match="--image-um-per-px"):
        open_sections(tmp_path, format="csv_cells", image=image)
    with pytest.raises(InputError, match="--bin-um with csv files of positions and counts"):
        open_sections(tmp_path, format="csv_cells", image=image, bin_um=2)


def test_the_sampler_has_its_order():
    assert code_of("add-a-sampler.md")["order"] > 1.75


def test_files_that_the_documentation_names_exist():
    new = {"readers/csv_cells.py", "src/sge2hist/readers/csv_cells.py"}  # of the example
    new |= {"tests/fixtures/csv_cells.py", "tests/readers/test_csv_cells.py"}
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "recipes").glob("*.md")]:
        for name in re.findall(r"`([\w/]+/[\w]+\.(?:py|md|yml))`", page.read_text(encoding="utf-8")):
            places = (ROOT / name, ROOT / "src" / "sge2hist" / name)
            assert name in new or any(place.exists() for place in places), f"{page.relative_to(ROOT)} names {name}"


def test_the_api_reference_has_every_public_name():
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"auto\w+:: sge2hist\.(\w+)", text))
    assert documented == {name for name in sge2hist.__all__ if not name.startswith("_")}

"""`sge2hist generate`: options that do not go together, cells by id, and the contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sge2hist.cli.contact_sheet import write_contact_sheet
from sge2hist.cli.generate import check_options, rows_of_cells
from sge2hist.data.errors import InputError

DEFAULTS = {
    "data": Path("a.paired"),
    "types": None,
    "split": "test",
    "cells": None,
    "gene": [],
    "edit": None,
    "footprints": "auto",
    "n": None,
    "samples": 1,
    "like": None,
    "z2": "type",
    "context": None,
    "shuffle_cells": False,
    "seed": 0,
    "layer": None,
    "round_counts": False,
}
BY_TYPE = {"data": None, "types": "Podocyte"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edit": Path("e.geojson")}, "--edits without --cells"),
        ({"edit": Path("e.geojson"), "cells": "a", "context": "homotypic"}, "--context with --edits"),
        ({"n": 0}, "-n 0"),
        ({"samples": 0}, "--samples 0"),
        ({"seed": -1}, "--seed -1"),
        ({"like": "cell"}, "--like with cells of --data"),
        ({"data": None}, "neither --data nor --types"),
        ({"types": "Podocyte"}, "both --data and --types"),
        (BY_TYPE | {"like": "cell"}, "--like without --data"),
        (BY_TYPE | {"types": " , "}, "names of cell types"),
        (BY_TYPE | {"samples": 3}, "--samples with --types"),
        ({"data": Path("cells.h5ad"), "shuffle_cells": True}, "--shuffle-cells with an .h5ad"),
        ({"layer": "counts"}, "--layer with a paired dataset"),
        (BY_TYPE | {"round_counts": True}, "--round-counts with --types"),
        ({"cells": "a", "n": 3}, "-n with --cells"),
        ({"cells": "a", "split": "all"}, "--split with --cells"),
        ({"cells": " , "}, "ids of cells"),
        (BY_TYPE | {"cells": "a"}, "--cells with --types"),
        (BY_TYPE | {"gene": ["UMOD=0"]}, "--gene with --types"),
        ({"gene": ["UMOD=0"]}, "without one --cell"),
        ({"cells": "a,b", "gene": ["UMOD=0"]}, "without one --cell"),
        ({"cells": "a", "gene": ["UMOD=0"], "samples": 2}, "--samples with --gene"),
        ({"cells": "a", "gene": ["UMOD"]}, "GENE=FROM:TO:N"),
        ({"cells": "a", "gene": ["UMOD=0:2"]}, "GENE=FROM:TO:N"),
        ({"cells": "a", "gene": ["UMOD=0:2:0"]}, "N from 1"),
        ({"cells": "a", "gene": ["A=0:2:3", "B=0:1:3"]}, "scaled together"),
    ],
)
def test_what_would_have_no_effect_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        check_options(DEFAULTS | changed)


def test_what_goes_together_passes():
    check_options(DEFAULTS | {"n": 5, "shuffle_cells": True, "samples": 2})
    check_options(DEFAULTS | BY_TYPE | {"n": 4, "z2": "prior", "context": "homotypic"})
    check_options(DEFAULTS | {"types": "Podocyte", "like": "cell"})
    check_options(DEFAULTS | {"cells": "a,b", "samples": 2})


def test_cells_are_found_by_id_in_the_order_asked():
    import pandas as pd

    known = pd.Index(["cell_1", "cell_2", "cell_3"])
    assert rows_of_cells(known, ["cell_3", "cell_1"], Path("x")).tolist() == [2, 0]
    with pytest.raises(InputError, match="an id such as cell_2"):
        rows_of_cells(known, ["cel_2"], Path("x"))
    with pytest.raises(InputError, match="twice"):
        rows_of_cells(known, ["cell_1", "cell_1"], Path("x"))


def test_cells_by_id_and_a_contact_sheet(tiny_model, tiny_paired, tmp_path):
    from PIL import Image
    from typer.testing import CliRunner

    from sge2hist.cli.main import app
    from sge2hist.data.generated import GeneratedSet

    ids = [str(name) for name in tiny_paired.obs.index[[7, 2]]]
    output = tmp_path / "a.generated"
    words = ["generate", tiny_model, "--data", tiny_paired.path, "--cells", ",".join(ids), "--steps", 1, "-o", output]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    generated = GeneratedSet.open(output)
    assert list(generated.obs["cell_id"]) == ids
    with Image.open(output / "contact_sheet.png") as picture:
        assert picture.width > 2 * generated.image(0).shape[1]
    assert write_contact_sheet(generated) == output / "contact_sheet.png"


def test_a_dose_strip(tiny_model, tiny_paired, tmp_path):
    from typer.testing import CliRunner

    from sge2hist import SGE2Hist
    from sge2hist.cli.main import app
    from sge2hist.data.generated import GeneratedSet

    counts = tiny_paired.counts(np.arange(len(tiny_paired)))
    row, column = (int(at[0]) for at in counts.nonzero())
    cell, gene = str(tiny_paired.obs.index[row]), tiny_paired.genes.symbols[column]
    output = tmp_path / "dose.generated"
    words = [
        "generate",
        tiny_model,
        "--data",
        tiny_paired.path,
        "--cell",
        cell,
        "--gene",
        f"{gene}=0:2:3",
        "-o",
        output,
    ]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    generated = GeneratedSet.open(output)
    assert list(generated.obs["factor"]) == [0, 1, 2]
    assert (output / "contact_sheet.png").is_file()
    model = SGE2Hist.from_pretrained(tiny_model)
    images = model.dose(tiny_paired, cell, gene, [0, 1, 2])
    assert all(np.array_equal(generated.image(i), images[i]) for i in range(3))
    assert np.array_equal(images[1], model.generate_from_genes(tiny_paired, rows=[row])[0, 0])
    with pytest.raises(InputError, match="cell"):
        model.dose(tiny_paired, "nobody", gene)
    with pytest.raises(InputError, match=r"PairedDataset\.open"):
        model.dose("kidney.paired", cell, gene)

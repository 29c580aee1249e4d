from pathlib import Path

import pytest

from sge2hist.data.errors import InputError
from sge2hist.readers import open_sections
from sge2hist.readers.detect import FORMATS, detect_format

MADE_OF = {
    "visium_hd": ["outs/binned_outputs/square_008um/x", "outs/spatial/x"],
    "visium_hd_segmented": ["outs/segmented_outputs/x"],
    "xenium": ["experiment.xenium"],
    "cosmx": ["flatFiles/S1/S1_exprMat_file.csv.gz"],
    "merscope": ["cell_by_gene.csv", "cell_metadata.csv"],
    "stereoseq": ["outs/feature_expression/A1.tissue.gef"],
    "visium": ["outs/spatial/tissue_positions.csv"],
    "legacy_st": ["a/C1_selection.tsv"],
    "spatialdata": [".zgroup"],
}


@pytest.mark.parametrize("name", MADE_OF)
def test_folders(tmp_path: Path, name: str) -> None:
    for file in MADE_OF[name]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    assert detect_format(tmp_path).format == name
    if (tmp_path / "outs").is_dir():
        assert detect_format(tmp_path / "outs").format == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ID_binned_outputs/square_016um/x", "visium_hd"),
        ("ID_experiment.xenium", "xenium"),
        ("ovarian_p2s2_cell_by_gene.csv", "merscope"),
        ("041.cellcut/SN.cellbin.gef", "stereoseq"),
        ("spatial/tissue_positions_list.csv", "visium"),
    ],
)
def test_variants(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("")
    assert detect_format(tmp_path).format == expected


def test_files(tmp_path: Path) -> None:
    for name, expected in (("a.h5ad", "anndata"), ("a.pkl", "published_pickle")):
        (tmp_path / name).write_text("")
        assert detect_format(tmp_path / name).format == expected


def test_unknown_lists_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=r"notes\.txt.*Visium HD.*Xenium"):
            detect_format(path)
    with pytest.raises(InputError, match="no such file"):
        detect_format(tmp_path / "none")


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_text("")
    with pytest.raises(InputError, match="--bin-um with AnnData"):
        open_sections(tmp_path / "a.h5ad", bin_um=8)
    with pytest.raises(InputError, match="--format visium3"):
        open_sections(tmp_path / "a.h5ad", format="visium3")
    assert set(MADE_OF) | {"anndata", "published_pickle"} == set(FORMATS)


def test_a_paired_dataset_is_not_prepared_twice(tiny_paired) -> None:
    with pytest.raises(InputError, match=r"prepared already[\s\S]*sge2hist train"):
        detect_format(tiny_paired.path)


@pytest.mark.parametrize("place", ["outs/aggr_tissue_positions.csv", "outs/spatial/aggr_tissue_positions.csv"])
def test_the_output_of_aggr_is_refused_with_its_sections(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n")
    (tmp_path / "outs/aggregation.csv").write_text("library_id,molecule_h5\nS1,a.h5\nS2,b.h5\n")
    for path in (tmp_path, tmp_path / "outs"):
        with pytest.raises(InputError, match=r"`spaceranger aggr`.*S1, S2.*outs/ folder of each run"):
            detect_format(path)


def test_every_format_has_its_module():
    from importlib.util import find_spec

    from sge2hist.readers import TENX_FORMATS, VENDOR_MODULES

    assert set(VENDOR_MODULES) < set(FORMATS)
    assert all(find_spec(f"sge2hist.readers.{module}") for module in VENDOR_MODULES.values())
    assert set(TENX_FORMATS) < set(FORMATS)
    assert all(find_spec(f"sge2hist.readers.tenx.{name}") for name in TENX_FORMATS)


def test_a_new_format_is_the_module_of_its_name(monkeypatch, tmp_path):
    import sys
    from types import SimpleNamespace

    import sge2hist.readers as readers

    monkeypatch.setitem(FORMATS, "csv_cells", "csv files of positions and counts")
    monkeypatch.setitem(readers._OPTIONS, "csv_cells", ("um_per_px",))
    module = SimpleNamespace(read=lambda path, *, image, um_per_px: (path, image, um_per_px))
    monkeypatch.setitem(sys.modules, "sge2hist.readers.csv_cells", module)
    assert readers.open_sections(tmp_path, format="csv_cells", image="he.tif", um_per_px=0.5) == [
        (tmp_path, "he.tif", 0.5)
    ]

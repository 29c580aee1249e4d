"""CosMx: counts, places and pictures are those of the tissue in every form that the files were seen in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from fixtures.cosmx import CONTROLS, write_cosmx
from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import ALL
from sge2hist.readers import open_sections
from sge2hist.readers.detect import detect_format
from sge2hist.readers.nanostring import cosmx
from sge2hist.readers.nanostring.cosmx_tables import is_control, read_cells

TISSUE = make_tissue()


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("positions", ["legacy", "px and mm", "mm"])
def test_cells_and_pictures_lie_where_the_tissue_has_them(tmp_path: Path, signs, positions) -> None:
    truth = write_cosmx(TISSUE, tmp_path / "x", signs=signs, positions=positions)
    section = cosmx.read(truth.folder, channels=ALL)
    assert section.image.channels == ("Membrane", "DAPI")
    assert np.abs(section.centre_xy_px - TISSUE.centre_xy_px).max() < 1e-6
    pixels = section.image.levels[0].values.region(0, 0, 200, 390)  # type: ignore[attr-defined]
    assert (pixels == truth.stains).all()  # FOV 9, which has no cells, among them
    assert section.um_per_px == pytest.approx(0.5)
    assert list(section.obs.index) == truth.cell_ids
    radius = np.linalg.norm(section.outline_px, axis=2)
    assert radius == pytest.approx(6.0, abs=1e-4)
    first = shapely.Polygon(section.centre_xy_px[0] + section.outline_px[0])
    assert first.contains(shapely.Point(TISSUE.centre_xy_px[0]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("named_cells", [False, True])
def test_counts_are_those_of_the_tissue_whatever_the_order_of_rows(tmp_path: Path, packed, named_cells) -> None:
    truth = write_cosmx(TISSUE, tmp_path / "x", packed=packed, named_cells=named_cells)
    section = cosmx.read(truth.folder, channels=ALL)
    assert (section.read_counts(None, None).toarray() == TISSUE.counts_NG).all()
    assert list(section.genes["symbol"]) == TISSUE.symbols
    group = np.arange(len(TISSUE)) % 3 - 1
    summed = np.stack([TISSUE.counts_NG[group == i].sum(axis=0) for i in (0, 1)])
    assert (section.read_counts(group, 2).toarray() == summed).all()
    assert any(f"{len(CONTROLS)} columns of controls" in note for note in section.notes)


def test_a_wrong_file_of_positions_moves_no_cell(tmp_path: Path) -> None:
    truth = write_cosmx(TISSUE, tmp_path / "x", fov_error_px=100.0)
    section = cosmx.read(truth.folder, channels=ALL)
    assert np.abs(section.centre_xy_px - TISSUE.centre_xy_px).max() < 1e-6
    assert any("the file of FOV positions differs" in note for note in section.notes)


@pytest.mark.parametrize("signs", [(1, 1), (1, -1)])
def test_the_nuclear_stain_decides_which_way_rows_run(tmp_path: Path, signs) -> None:
    """A release that broke the rule of the handedness: the mosaic still shows nuclei at the cells."""
    down = signs[0] * signs[1] > 0
    tissue = make_tissue(n_cells=10)  # three rows of cells: none lies where its mirror image in the FOV does
    truth = write_cosmx(tissue, tmp_path / "x", signs=signs, rows_go_down=down, positions="none")
    section = cosmx.read(truth.folder, channels=ALL)
    assert np.abs(section.centre_xy_px - tissue.centre_xy_px).max() < 1e-6
    assert any("the handedness of the slide says otherwise" in note for note in section.notes)


def test_an_image_apart_from_the_run_waits_for_a_map(tmp_path: Path) -> None:
    from fixtures.tissue import write_image

    truth = write_cosmx(TISSUE, tmp_path / "x")
    with pytest.raises(InputError, match=r"no H&E.*--channels all"):
        cosmx.read(truth.folder)
    section = cosmx.read(truth.folder, image=write_image(TISSUE, tmp_path / "he.tif"))
    assert section.needs_map == "px of the slide"
    moved = section.centre_xy_px - section.centre_xy_px.mean(axis=0)
    assert moved == pytest.approx(TISSUE.centre_xy_px - TISSUE.centre_xy_px.mean(axis=0), abs=1)


def test_recognised_by_content_and_one_of_several_slides(tmp_path: Path) -> None:
    write_cosmx(TISSUE, tmp_path / "flat" / "S1", slide="S1")
    write_cosmx(TISSUE, tmp_path / "flat" / "S2", slide="S2", packed=True)
    assert detect_format(tmp_path / "flat").format == detect_format(tmp_path / "flat" / "S2").format == "cosmx"
    with pytest.raises(InputError, match=r"2 slides \(S1, S2\).*--section S1"):
        cosmx.read(tmp_path / "flat", channels=ALL)
    (section,) = open_sections(tmp_path / "flat" / "S2", channels=ALL)
    assert section.name == "S2"


def test_what_is_wrong_is_refused_by_name(tmp_path: Path) -> None:
    truth = write_cosmx(TISSUE, tmp_path / "x")
    path = truth.folder / "S1_metadata_file.csv"
    table = pd.read_csv(path)
    table.assign(CenterX_global_px=table["CenterX_global_px"] * 0.12).to_csv(path, index=False)
    with pytest.raises(InputError, match="px per px in a FOV"):
        cosmx.read(truth.folder, channels=ALL)
    table.drop(columns="CenterX_global_px").to_csv(path, index=False)
    with pytest.raises(InputError, match="no column CenterX_global_px"):
        cosmx.read(truth.folder, channels=ALL)
    pd.concat([table, table[:1]]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"cell 1 of FOV 1 twice"):
        cosmx.read(truth.folder, channels=ALL)
    table.to_csv(path, index=False)
    counts = truth.folder / "S1_exprMat_file.csv"
    lines = counts.read_text().splitlines()
    counts.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="no counts of 1 of 24 cells"):
        cosmx.read(truth.folder, channels=ALL).read_counts(None, None)
    counts.write_text("\n".join([*lines[:-1], lines[-1][:-9]]) + "\n")
    with pytest.raises(InputError, match="cannot be read"):
        cosmx.read(truth.folder, channels=ALL).read_counts(None, None)
    counts.write_text("\n".join([*lines[:-1], lines[-1][:-1] + ".5"]) + "\n")
    cosmx.read(truth.folder, channels=ALL).read_counts(None, None)  # of a control: it is no count of a gene
    first, _, rest = lines[-1].split(",", 2)
    counts.write_text("\n".join([*lines[:-1], f"{first},1,1.5,{rest.split(',', 1)[1]}"]) + "\n")
    with pytest.raises(InputError, match="counts with fractions"):
        cosmx.read(truth.folder, channels=ALL).read_counts(None, None)


def test_real_rows_of_the_first_release(tmp_path: Path) -> None:
    """Columns and values as a public lung data set has them."""
    path = tmp_path / "x_metadata_file.csv"
    path.write_text(
        '"fov","cell_ID","Area","CenterX_local_px","CenterY_local_px","CenterX_global_px","CenterY_global_px"\n'
        "10,1,5836,346,3609,25423.7777777778,162475.666666667\n10,2,6841,632,3614,25709.7777777778,162480.666666667\n"
    )
    cells = read_cells(path)
    assert list(cells.obs.index) == ["10_1", "10_2"]
    assert cells.local_xy_px[1].tolist() == [632, 3614]
    assert not is_control("NEGR1")
    assert is_control("NegPrb3")


def test_counts_and_positions_agree_with_spatialdata_io(tmp_path: Path) -> None:
    cosmx_io = pytest.importorskip("spatialdata_io").cosmx
    truth = write_cosmx(TISSUE, tmp_path / "x", positions="legacy", named_cells=False)
    for name in ("CellComposite", "CellLabels"):
        (truth.folder / name).mkdir()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = cosmx_io(truth.folder, transcripts=False).tables["table"]
    section = cosmx.read(truth.folder, channels=ALL)
    theirs = table.obs.assign(row=np.arange(table.n_obs)).set_index(["fov", "cell_ID"])["row"]
    ids = [(name.split("_")[0], int(name.split("_")[1])) for name in section.obs.index]
    rows = [int(theirs.loc[one]) for one in ids]
    columns = [i for i, name in enumerate(table.var_names) if not is_control(name)]
    assert (section.read_counts(None, None).toarray() == table.X.toarray()[rows][:, columns]).all()
    offsets = section.centre_xy_px - table.obsm["global"][rows] * [1, -1]
    assert np.abs(offsets - offsets[0]).max() < 1e-6

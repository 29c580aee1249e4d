"""`prepare` with positions in other frames, several sections in one table, and images of a part of the observations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from fixtures.anndata_image import write_anndata
from fixtures.tissue import make_tissue
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from pairing.test_prepare_formats import EVERYTHING
from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError
from sge2hist.pairing.config import CellsConfig
from sge2hist.pairing.prepare import prepare

TISSUE = make_tissue(width_px=800, height_px=600, n_cells=600)
SETTINGS = replace(EVERYTHING, image_um_per_px=0.5)


def run(path: Path, image: Path | None, output: Path, **options: object):
    logged: list[str] = []
    dataset = prepare(path, output, SETTINGS, images=image, log=logged.append, **options)
    return dataset, logged


@pytest.mark.parametrize("frame", ["um", "hires", "lowres"])
def test_an_anndata_in_another_frame_is_refused_and_the_option_repairs_it(tmp_path: Path, frame: str) -> None:
    scales = {"um": 0.5, "hires": 0.3, "lowres": 0.08}
    path, image = write_anndata(TISSUE, tmp_path, spatial=TISSUE.centre_xy_px * scales[frame])
    adata = anndata.read_h5ad(path)
    adata.uns["spatial"] = {"lib": {"scalefactors": {"tissue_hires_scalef": 0.3, "tissue_lowres_scalef": 0.08}}}
    adata.write_h5ad(path)
    with pytest.raises(InputError, match=f"um apart.*--positions {frame}"):
        run(path, image, tmp_path / "x.paired")
    assert not (tmp_path / "x.paired").exists()
    dataset, _ = run(path, image, tmp_path / "x.paired", positions=frame)
    np.testing.assert_allclose(dataset.centre_xy_px, TISSUE.centre_xy_px, atol=1e-6)
    manifest = read_manifest(dataset.path, "paired")
    assert f"positions taken as {frame}" in json.dumps(manifest["notes"])


def test_px_are_taken_without_a_word(tmp_path: Path) -> None:
    path, image = write_anndata(TISSUE, tmp_path)
    dataset, logged = run(path, image, tmp_path / "x.paired")
    np.testing.assert_allclose(dataset.centre_xy_px, TISSUE.centre_xy_px)
    assert not [line for line in logged if "position" in line and "warning" in line]


def test_positions_of_formats_that_state_their_unit_cannot_be_stated(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path / "hd")
    with pytest.raises(InputError, match=r"--positions um with Visium HD"):
        prepare(
            tmp_path / "hd", tmp_path / "x.paired", EVERYTHING, images=truth.image, positions="um", log=lambda _: None
        )


def test_outlines_in_um_are_refused_and_the_option_repairs_it(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path / "hd")

    def outlines(scale: float) -> Path:
        angle = np.linspace(0, 2 * np.pi, 13)
        ring = np.stack([np.cos(angle), np.sin(angle)], 1) * TISSUE.radius_um / TISSUE.um_per_px
        features = [
            {
                "type": "Feature",
                "properties": {"cell_id": number + 1},
                "geometry": {"type": "Polygon", "coordinates": [((centre + ring) * scale).tolist()]},
            }
            for number, centre in enumerate(TISSUE.centre_xy_px)
        ]
        path = tmp_path / f"{scale}.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path

    def cells(scale: float, name: str, **options: object):
        config = replace(EVERYTHING, cells=CellsConfig(method="labels", labels=outlines(scale)))
        return prepare(tmp_path / "hd", tmp_path / name, config, images=truth.image, log=lambda _: None, **options)

    expected = cells(1.0, "px.paired")
    assert len(expected) > 500
    with pytest.raises(InputError, match=r"outlines that look like um.*--positions um"):
        cells(0.5, "um.paired")
    found = cells(0.5, "um.paired", positions="um")
    np.testing.assert_allclose(found.centre_xy_px, expected.centre_xy_px)
    assert (found.counts_in_memory() != expected.counts_in_memory()).nnz == 0


def test_one_of_two_sections_in_a_table(tmp_path: Path) -> None:
    path, image = write_anndata(TISSUE, tmp_path)
    one = anndata.read_h5ad(path)
    other = one.copy()
    other.obs_names = [f"{name}_b" for name in other.obs_names]
    other.X = other.X * 2
    both = anndata.concat({"first": one, "second": other}, label="sample")
    both.var["gene_ids"] = one.var["gene_ids"]
    both.obsm["spatial"] = np.concatenate([one.obsm["spatial"], other.obsm["spatial"] + 3])
    both.write_h5ad(path)
    with pytest.raises(InputError, match=r"2 slides in one file \(sample: first, second\).*--section first"):
        run(path, image, tmp_path / "x.paired")
    dataset, _ = run(path, image, tmp_path / "x.paired", section="second")
    assert (dataset.counts_in_memory().toarray() == 2 * TISSUE.counts_NG).all()
    assert dataset.slide_ids == ["cells_second"]
    with pytest.raises(InputError, match="--section third"):
        run(path, image, tmp_path / "y.paired", section="third")


def test_an_image_of_one_of_several_sections(tmp_path: Path) -> None:
    far = np.concatenate([TISSUE.centre_xy_px, *(TISSUE.centre_xy_px + np.array([x, 0]) for x in (1500, 3000))])
    three = replace(
        TISSUE,
        centre_xy_px=far,
        counts_NG=np.concatenate([TISSUE.counts_NG] * 3),
        cell_types=TISSUE.cell_types * 3,
    )
    path, image = write_anndata(three, tmp_path)
    with pytest.raises(InputError, match=r"67% of the cells outside.*--keep-inside"):
        run(path, image, tmp_path / "x.paired")
    dataset, logged = run(path, image, tmp_path / "x.paired", keep_inside=True)
    assert len(dataset) == len(TISSUE)
    said = "600 of 1,800 cells (33.3%) lie on the image and are kept (--keep-inside)"
    assert any(said in line for line in logged)
    assert said in json.dumps(read_manifest(dataset.path, "paired")["alignment"])


def test_a_xenium_run_whose_image_shows_a_part(tmp_path: Path) -> None:
    far = np.concatenate([TISSUE.centre_xy_px, *(TISSUE.centre_xy_px + np.array([x, 0]) for x in (1500, 3000))])
    three = replace(
        TISSUE, centre_xy_px=far, counts_NG=np.concatenate([TISSUE.counts_NG] * 3), cell_types=TISSUE.cell_types * 3
    )
    folder = write_xenium(three, tmp_path / "x").folder
    with pytest.raises(InputError, match=r"--keep-inside"):
        prepare(folder, tmp_path / "x.paired", EVERYTHING, log=lambda _: None)
    dataset = prepare(folder, tmp_path / "x.paired", EVERYTHING, log=lambda _: None, keep_inside=True)
    assert len(dataset) == len(TISSUE)

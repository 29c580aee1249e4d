"""Latents of the cells of a slide: bit for bit the same whatever the area; edits change those of the neighbours alone."""

import numpy as np
import pytest
import shapely

from sge2hist.generation.slide.cells import CellStore, write_cells
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import lattice_of
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.generation.slide.tiling import Area
from sge2hist.models.bundle import ModelBundle

WHOLE = Area(top=0, left=0, height=64, width=64)  # latent pixels


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def _stored(bundle, tiny_paired, folder, area=WHOLE, edits=()):
    """Positions, sources and latents of all cells in the file."""
    lattice = lattice_of(bundle)
    write_cells(folder, bundle, source_from_paired(tiny_paired), lattice, area, list(edits))
    parts = list(CellStore(folder, lattice).in_source_order())
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in ("xy_um_M2", "source_M", "z_MZ"))


def test_latents_do_not_depend_on_the_area(bundle, tiny_paired, tmp_path):
    _, source, z = _stored(bundle, tiny_paired, tmp_path / "whole")
    far = Area(top=128, left=128, height=4, width=4)  # its blocks and those of the whole share some
    _, some, z_some = _stored(bundle, tiny_paired, tmp_path / "far", far)
    assert 20 < len(some) < len(source)
    shared = np.intersect1d(source, some)
    assert len(shared) > 20
    np.testing.assert_array_equal(z_some[np.isin(some, shared)], z[np.isin(source, shared)])


def test_added_cells_take_the_microenvironment_of_their_neighbours_whatever_the_area(bundle, tiny_paired, tmp_path):
    edit = Edit(area=shapely.box(40, 300, 700, 330), add_type="beta", spacing_um=15.0)
    xy, source, z = _stored(bundle, tiny_paired, tmp_path / "whole", edits=[edit])
    n_type, new = bundle.config.gene.n_type, source < 0
    assert new.sum() > 20
    near = np.linalg.norm(xy[new][:, None] - xy[~new][None], axis=2) <= max(50.0, bundle.config.gene.neighbour_um)
    expected = [z[~new][who, n_type:].mean(0) for who in near if who.any()]
    np.testing.assert_allclose(z[new][near.any(1), n_type:], expected, atol=1e-5)
    part = Area(top=0, left=0, height=40, width=10)
    xy_part, source_part, z_part = _stored(bundle, tiny_paired, tmp_path / "part", part, [edit])
    inside = (source_part >= 0) | (
        xy_part < lattice_of(bundle).um_per_latent_px * np.array([part.width, part.height])
    ).all(1)
    assert (source_part[inside] < 0).any()
    known = {tuple(position): latent for position, latent in zip(xy, z, strict=True)}
    assert (source_part[inside] < 0).any() or (source_part < 0).any()
    for position, latent in zip(xy_part[inside], z_part[inside], strict=True):
        np.testing.assert_array_equal(latent, known[tuple(position)])


def test_removed_cells_are_no_neighbours_and_change_no_distant_cell(bundle, tiny_paired, tmp_path):
    xy, source, z = _stored(bundle, tiny_paired, tmp_path / "before")
    spot = shapely.box(200, 200, 260, 260)
    _, kept, z_kept = _stored(bundle, tiny_paired, tmp_path / "after", edits=[Edit(area=spot, remove=True)])
    gone = ~np.isin(source, kept)
    assert gone.sum() > 3
    distance = np.linalg.norm(xy[~gone][:, None] - xy[gone][None], axis=2).min(1)
    radius_um = bundle.config.gene.neighbour_um
    same = (z_kept == z[~gone]).all(1)
    assert same[distance > radius_um].all()
    assert not same[distance < 0.6 * radius_um].all()


def test_an_edited_gene_changes_no_distant_cell(bundle, tiny_paired, tmp_path):
    xy, _, z = _stored(bundle, tiny_paired, tmp_path / "before")
    spot = shapely.box(200, 200, 260, 260)
    gene = tiny_paired.genes.symbols[0]
    _, _, changed = _stored(bundle, tiny_paired, tmp_path / "after", edits=[Edit(area=spot, gene=gene, factor=20.0)])
    distance = shapely.distance(spot, shapely.points(xy))
    same = (changed == z).all(1)
    assert same[distance > bundle.config.gene.neighbour_um].all()
    assert not same.all()

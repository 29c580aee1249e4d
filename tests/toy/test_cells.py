import numpy as np
from scipy.spatial.distance import cdist

from sge2hist.toy.architecture import Region
from sge2hist.toy.cell_types import TYPE_NAMES, trait, type_index
from sge2hist.toy.cells import eosin_factor


def test_every_type_occurs_and_nobody_sits_on_glass_or_in_a_lumen(tiny_tissue):
    assert np.bincount(tiny_tissue.cells.type_N, minlength=len(TYPE_NAMES)).min() >= 20
    region = tiny_tissue.architecture.at(tiny_tissue.architecture.region, tiny_tissue.cells.xy_um)
    empty = np.isin(region, [Region.GLASS, Region.GLAND_LUMEN, Region.VESSEL_LUMEN])
    assert empty.mean() < 0.01  # a ring nucleus may lose its place to jitter, rarely


def test_nuclei_keep_apart(tiny_tissue):
    distance = cdist(tiny_tissue.cells.xy_um, tiny_tissue.cells.xy_um)
    np.fill_diagonal(distance, np.inf)
    min_minor_um = min(
        np.sqrt(area * ratio / np.pi)
        for area, ratio in zip(trait("nucleus_area_um2"), trait("nucleus_axis_ratio"), strict=True)
    )
    assert distance.min() >= 2 * min_minor_um


def test_immune_fraction_agrees_with_a_slow_count(tiny_tissue):
    cells, radius = tiny_tissue.cells, tiny_tissue.config.neighbourhood_radius_um
    for i in range(0, len(cells), 97):
        near = np.hypot(*(cells.xy_um - cells.xy_um[i]).T) <= radius
        near[i] = False
        expected = (cells.type_N[near] == type_index("Immune")).mean() if near.any() else 0.0
        assert np.isclose(cells.immune_fraction[i], expected)


def test_nuclear_area_grows_with_immune_neighbours_as_configured(tiny_tissue):
    cells = tiny_tissue.cells
    other = cells.type_N != type_index("Immune")
    log_area = np.log(cells.nucleus_area_um2 / np.asarray(trait("nucleus_area_um2"))[cells.type_N])
    slope, offset = np.polyfit(cells.immune_fraction[other], log_area[other], 1)
    assert abs(slope - tiny_tissue.config.nucleus_log_gain) < 0.06
    assert abs(offset) < 0.02


def test_eosin_follows_the_gradient_as_configured(tiny_tissue):
    cells = tiny_tissue.cells
    log_eosin = np.log(cells.cytoplasm_eosin / np.asarray(trait("cytoplasm_eosin"))[cells.type_N])
    slope = np.polyfit(cells.gradient, log_eosin, 1)[0]
    assert abs(slope - tiny_tissue.config.eosin_log_gain) < 0.05
    assert np.isclose(eosin_factor(np.array([0.5]), tiny_tissue.config)[0], 1.0)


def test_table_holds_the_same_facts(tiny_tissue):
    frame = tiny_tissue.cells.to_frame(tiny_tissue.config.um_per_px)
    assert frame.index.is_unique
    np.testing.assert_allclose(frame["x_px"] * tiny_tissue.config.um_per_px, tiny_tissue.cells.xy_um[:, 0])
    assert (frame["cell_type"].map(TYPE_NAMES.index) == tiny_tissue.cells.type_N).all()
    assert frame["nucleus_eccentricity"].between(0, 1).all()

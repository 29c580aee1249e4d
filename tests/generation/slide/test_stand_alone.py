"""A region as one canvas."""

import json

import numpy as np
import pytest
import shapely

import sge2hist
from sge2hist.data.coverage import COVERAGE_NAME
from sge2hist.data.errors import InputError
from sge2hist.generation.slide.cells import CellStore, write_cells
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import lattice_of
from sge2hist.generation.slide.nearby_cells import encode_nearby
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.generation.slide.stand_alone import StandAloneRegion
from sge2hist.generation.slide.tiling import Area
from sge2hist.models.bundle import ModelBundle


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


@pytest.fixture(scope="module")
def source(tiny_paired):
    return source_from_paired(tiny_paired)


def test_the_noise_is_that_of_the_place_and_edits_act_near_their_cells_alone(bundle, source):
    sampler = bundle.config.sampler
    plain = StandAloneRegion(bundle, EditedSource(source), (20, 24, 64, 48)).generate(0, sampler)
    assert plain.shape == (48, 64, 3)
    assert plain.dtype == np.uint8
    again = StandAloneRegion(bundle, EditedSource(source), (20, 24, 64, 48)).generate(0, sampler)
    assert np.array_equal(plain, again)
    # another region: the same noise and cells at the same places, so nearly the same tissue where both lie
    shifted = StandAloneRegion(bundle, EditedSource(source), (36, 24, 64, 48)).generate(0, sampler)
    assert np.corrcoef(plain[:, 32:].ravel(), shifted[:, 16:48].ravel())[0, 1] > 0.9
    far = Edit(area=shapely.box(0, 0, 1e4, 1e4), of_type=None, gene=source.genes.symbols[0], factor=0.0)
    assert not np.array_equal(
        plain, StandAloneRegion(bundle, EditedSource(source, [far]), (20, 24, 64, 48)).generate(0, sampler)
    )


def test_seen_evaluations_come_in_order_and_can_end_the_work(bundle, source):
    region = StandAloneRegion(bundle, EditedSource(source), (20, 24, 32, 32))
    seen = []
    region.generate(0, bundle.config.sampler, seen.append)
    assert len(seen) == len(bundle.model.image.denoiser.evaluations(bundle.config.sampler))

    def stop(denoised):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        region.generate(0, bundle.config.sampler, stop)


def test_written_as_a_generated_slide(bundle, source, tiny_paired, tmp_path):
    um = bundle.config.um_per_px
    region_um = (20 * um, 24 * um, 64 * um, 48 * um)
    name = bundle.types.names[0]
    edits = [Edit(area=shapely.box(*region_um[:2], region_um[0] + 30, region_um[1] + 30), remove=True)]
    edits.append(Edit(add_type=name, at_um=((region_um[0] + 5, region_um[1] + 6),)))
    slide = sge2hist.generate_slide(
        bundle,
        tiny_paired,
        tmp_path / "r.generated",
        region_um=region_um,
        edits=edits,
        stand_alone=True,
    )
    expected = StandAloneRegion(bundle, EditedSource(source, edits), (20, 24, 64, 48)).generate(
        0, bundle.config.sampler
    )
    assert np.array_equal(slide.image.as_array(), expected)
    table = slide.cells()
    assert table.obs["edited"].sum() == 1
    assert table.obs["cell_type"]["added_0"] == name
    assert np.allclose(table["added_0"].obsm["spatial_um"], [[region_um[0] + 5, region_um[1] + 6]])
    assert len(json.dumps(slide.manifest["edits"])) > 10
    assert slide.manifest["stand_alone"] is True
    assert slide.manifest["covered_share"] == 1.0
    assert (slide.path / COVERAGE_NAME).is_file()


@pytest.mark.parametrize("options", [{}, {"n_seeds": 2, "region_um": (0, 0, 50, 50)}])
def test_it_needs_one_region_and_one_seed(bundle, tiny_paired, tmp_path, options):
    with pytest.raises(InputError, match="one region and one seed"):
        sge2hist.generate_slide(bundle, tiny_paired, tmp_path / "r.generated", stand_alone=True, **options)


def test_cells_of_a_canvas_are_those_of_a_slide(bundle, source, tmp_path):
    lattice = lattice_of(bundle)
    name, gene = bundle.types.names[0], source.genes.symbols[0]
    x, y = source.xy_um_N2[len(source.id_N) // 2 + 20]
    edits = [
        Edit(area=shapely.box(x - 40, y - 40, x + 10, y + 10), gene=gene, counts=30.0),
        Edit(cells=tuple(source.id_N[820:826]), set_type=name),
        Edit(area=shapely.box(x + 20, y - 30, x + 50, y), remove=True),
        Edit(of_type=str(source.type_N[820]), move_um=(3.0, -2.0)),
        Edit(add_type=name, at_um=((x + 1.0, y + 2.0), (x - 9.0, y))),
    ]
    side = round(max(source.bounds_um[2:]) / lattice.um_per_latent_px)
    write_cells(tmp_path, bundle, source, lattice, Area(top=0, left=0, height=side, width=side), edits)
    (stored,) = list(CellStore(tmp_path, lattice).in_source_order())
    nearby = encode_nearby(bundle, EditedSource(source, edits), np.array([x, y]), (60.0, 50.0))
    assert (nearby.source_M < 0).sum() == 2
    assert len(nearby.source_M) > 20
    for number in np.unique(nearby.source_M):
        own, other = nearby.source_M == number, stored.source_M == number
        assert np.allclose(nearby.xy_um_M2[own], stored.xy_um_M2[other])
        assert np.allclose(nearby.z_MZ[own], stored.z_MZ[other], atol=1e-4)
        assert np.allclose(nearby.depth_M[own], stored.depth_M[other], atol=1e-5)
    inside = (np.abs(stored.xy_um_M2 - (x, y)) <= (60, 50)).all(1)
    assert inside.sum() == len(nearby.source_M)

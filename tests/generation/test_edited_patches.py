"""Patches after edits: the images of the other ways to ask for the same thing."""

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.dose import dose_request
from sge2hist.generation.edited_patches import edited_request
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.generation.slide.edits import Edit
from sge2hist.models.bundle import ModelBundle


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


@pytest.fixture(scope="module")
def dataset(tiny_paired):
    return tiny_paired


def images(bundle, request):
    return np.concatenate(list(image_batches(bundle, request)))


def expressed(dataset, row: int) -> str:
    """Symbol of the gene with most counts in a cell."""
    return dataset.genes.symbols[int(dataset.counts(np.array([row])).toarray()[0].argmax())]


def test_without_edits_the_patch_is_that_of_the_dataset(bundle, dataset):
    rows = np.array([len(dataset) // 2])
    plain = request_from_paired(bundle, dataset, rows, seed=3)
    edited = edited_request(bundle, dataset, rows, [], seed=3)
    assert np.array_equal(images(bundle, plain), images(bundle, edited))
    assert edited.obs["seed"].tolist() == plain.obs["seed"].tolist()
    assert edited.obs["sge2hist_type"].tolist() == plain.obs["sge2hist_type"].tolist()
    for name, values in plain.latents.items():
        assert np.array_equal(values, edited.latents[name])


def test_a_gene_of_one_cell_is_its_dose(bundle, dataset):
    row = len(dataset) // 2
    cell, gene = str(dataset.obs.index[row]), expressed(dataset, row)
    dose = dose_request(bundle, dataset, cell, gene, [4.0], seed=1)
    edited = edited_request(bundle, dataset, np.array([row]), [Edit(cells=(cell,), gene=gene, factor=4.0)], seed=1)
    assert np.array_equal(images(bundle, dose), images(bundle, edited))


def test_each_kind_of_edit_changes_what_conditions_the_patch(bundle, dataset):
    row = len(dataset) // 2
    cell, name = str(dataset.obs.index[row]), bundle.types.names[-1]
    here = tuple(dataset.centre_xy_px[row] * dataset.um_per_px + 1.0)
    plain = edited_request(bundle, dataset, np.array([row]), []).placed_cells(slice(0, 1))
    n = len(plain.image_M)

    def placed(**fields):
        return edited_request(bundle, dataset, np.array([row]), [Edit(**fields)]).placed_cells(slice(0, 1))

    assert len(placed(cells=(cell,), remove=True).image_M) == n - 1
    added = placed(add_type=name, at_um=(here,))
    assert len(added.image_M) == n + 1
    assert np.allclose(added.xy_um_M2[-1] - bundle.config.patch_um / 2, 1.0)
    moved = placed(cells=(cell,), move_um=(2.0, -3.0))
    assert np.allclose((moved.xy_um_M2 - plain.xy_um_M2).abs().sum(0), [2.0, 3.0])
    retyped = placed(cells=(cell,), set_type=name)
    changed = (retyped.z_MZ != plain.z_MZ).any(1)
    assert int(changed.sum()) == 1


def test_edits_without_effect_are_refused(bundle, dataset):
    with pytest.raises(InputError, match="gene 'NOSUCH'"):
        edited_request(bundle, dataset, np.array([0]), [Edit(gene="NOSUCH", factor=1.0)])

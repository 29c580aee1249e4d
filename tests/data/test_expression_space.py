"""Axes of expression of a few cells, of one gene, and of cells that do not differ."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.data.expression_space import fit_expression_space

COUNTS_NG = csr_array(np.random.default_rng(0).poisson(2.0, (40, 12)))


def test_axes_are_orthonormal_and_of_varying_genes() -> None:
    counts = COUNTS_NG.toarray()
    counts[:, 3] = 0
    space = fit_expression_space(csr_array(counts), n_axes=5)
    assert 3 not in space.genes
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(5), atol=1e-5)


@pytest.mark.parametrize(("n_cells", "n_genes"), [(2, 12), (3, 2), (40, 1)])
def test_few_cells_and_few_genes_have_axes(n_cells, n_genes) -> None:
    counts = np.pad(COUNTS_NG.toarray()[:n_cells, :n_genes], ((0, 0), (0, 1)), constant_values=5)
    space = fit_expression_space(csr_array(counts))
    assert np.isfinite(space.transform(csr_array(counts))).all()


@pytest.mark.parametrize("n_cells", [0, 1])
def test_no_axes_of_no_cell_or_one(n_cells) -> None:
    with pytest.raises(InputError, match=rf"found {n_cells} training cells .*at least 2.*--fractions"):
        fit_expression_space(COUNTS_NG[:n_cells])


@pytest.mark.parametrize("value", [0, 1])
def test_no_axes_of_equal_cells(value) -> None:
    with pytest.raises(InputError, match="no gene that varies among 40 training cells"):
        fit_expression_space(csr_array(np.full((40, 12), value)))

"""Features of neighbours, computed tile by tile, equal those of all cells at once; counts are read once, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.encode import neighbour_reader
from sge2hist.generation.slide.cells import write_neighbour_features
from sge2hist.generation.slide.tile_store import TileLayout
from sge2hist.models.bundle import ModelBundle

GROUP = 1000


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def scattered(n_cells: int) -> np.ndarray:
    """Cells around the origin, in random order, 5,000 per mm2."""
    side_um = 1000 * (n_cells / 5000) ** 0.5
    return np.random.default_rng(0).uniform(-side_um / 2, side_um / 2, (n_cells, 2))


def lattice(n_cells: int) -> np.ndarray:
    """Bins of 8 um in random order, stored in float32: more than 32 neighbours each, the last of them one of a ring."""
    side = round(n_cells**0.5)
    y, x = np.divmod(np.random.default_rng(0).permutation(side * side), side)
    return (np.stack([x, y], 1) * 8.0 - 4.0 * side).astype(np.float32).astype(np.float64)


def spots(n_cells: int) -> np.ndarray:
    """Twenty cells at each position: 100 um apart, or all 45 um from five others."""
    spot = np.arange(n_cells) // 20
    return np.stack([spot % 10 * 45.0 - 220, spot // 10 * 45.0 - 220], 1)[np.random.default_rng(0).permutation(n_cells)]


class Cells:
    """Cells at some positions; counts of a cell depend on its number alone. The last has no neighbour."""

    def __init__(self, bundle: ModelBundle, xy_um_N2: np.ndarray) -> None:
        self.xy_um_N2 = np.concatenate([xy_um_N2, xy_um_N2.max(0, keepdims=True) + 60.0])
        self.panel, self.bundle, self.n_read = bundle.genes, bundle, 0

    def read_counts(self, cells: np.ndarray) -> csr_array:
        """Ten genes of each."""
        self.n_read += len(cells)
        n, k, n_genes = len(cells), 10, len(self.panel)
        genes = (cells[:, None] * 7919 + np.arange(k) * 104729) % n_genes
        values = 1 + (cells[:, None] + np.arange(k)) % 5
        found = csr_array((values.ravel(), genes.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n_genes))
        found.sum_duplicates()
        return found

    def groups(self, layout: TileLayout):
        """All inside the layout."""
        for start in range(0, len(self.xy_um_N2), GROUP):
            yield start + np.flatnonzero(layout.tile_number(self.xy_um_N2[start : start + GROUP]) >= 0)

    def features(self, folder, low_um, high_um, side_um=200.0) -> np.ndarray:
        """Rows of all cells; those in the rectangle are computed."""
        file = write_neighbour_features(
            folder,
            self.bundle,
            self.read_counts,
            self.panel,
            self.xy_um_N2,
            self.groups,
            side_um,
            (np.array(low_um), np.array(high_um)),
        )
        return file.read(0, len(file))["features"]


@pytest.mark.parametrize("positions", [scattered, lattice, spots])
@pytest.mark.parametrize("side_um", [10.0, 200.0])
def test_tile_by_tile_equals_all_at_once_and_reads_each_cell_once(bundle, tmp_path, positions, side_um):
    cells = Cells(bundle, positions(2000))
    every = np.arange(len(cells.xy_um_N2))
    found = cells.features(tmp_path, (-700.0, -700.0), (700.0, 700.0), side_um)
    assert cells.n_read == len(every)
    expected = neighbour_reader(bundle, cells.read_counts, cells.panel, CellIndex(cells.xy_um_N2, every * 0))(every)
    np.testing.assert_array_equal(found, expected)
    assert (found[-1] == 0).all()
    assert (found[:-1, -1] == 1).mean() > 0.9
    assert not list(tmp_path.glob("coordinates*"))


@pytest.mark.parametrize("positions", [scattered, lattice, spots])
def test_a_part_has_the_features_of_the_whole(bundle, tmp_path, positions):
    cells = Cells(bundle, positions(2000))
    whole = cells.features(tmp_path, (-700.0, -700.0), (700.0, 700.0))
    cells.n_read = 0
    part = cells.features(tmp_path, (-60.0, 10.0), (40.0, 90.0))
    y, x = cells.xy_um_N2[:, 1], cells.xy_um_N2[:, 0]
    inside = (y >= -60) & (y < 40) & (x >= 10) & (x < 90)
    assert inside.sum() > 20
    np.testing.assert_array_equal(part[inside], whole[inside])
    assert cells.n_read < 0.5 * len(y)


def test_memory_does_not_grow_with_the_number_of_cells(bundle, tmp_path):
    peaks = []
    for n_cells in (10_000, 40_000):
        cells = Cells(bundle, scattered(n_cells))
        low, high = cells.xy_um_N2.min(0), cells.xy_um_N2.max(0)
        tracemalloc.start()
        write_neighbour_features(
            tmp_path, bundle, cells.read_counts, cells.panel, cells.xy_um_N2, cells.groups, 200.0, (low, high)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]

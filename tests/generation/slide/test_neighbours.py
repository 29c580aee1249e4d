"""What lies around cells, found square by square, against all cells at once; read once, in memory that does not grow."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.encode import around_in
from sge2hist.generation.slide.cells import write_surroundings
from sge2hist.generation.slide.tile_store import RecordFile, SquareFile, SquarePlaces
from sge2hist.models.bundle import ModelBundle

GROUP = 1000


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def random_places(n_cells: int) -> np.ndarray:
    """Around the origin, in no order, 5,000 per mm2."""
    side_um = 1000 * (n_cells / 5000) ** 0.5
    return np.random.default_rng(0).uniform(-side_um / 2, side_um / 2, (n_cells, 2))


def lattice(n_cells: int) -> np.ndarray:
    """Bins of 8 um, more than 32 within reach, the last of them one of a ring; stored in float32; in no order."""
    side = round(n_cells**0.5)
    y, x = np.divmod(np.random.default_rng(0).permutation(side * side), side)
    return (np.stack([x, y], 1) * 8.0 - 4.0 * side).astype(np.float32).astype(np.float64)


def spots(n_cells: int) -> np.ndarray:
    """Twenty cells at each place: 100 um apart, or all 45 um from five others."""
    place = np.arange(n_cells) // 20
    return np.stack([place % 10 * 45.0 - 220, place // 10 * 45.0 - 220], 1)[
        np.random.default_rng(0).permutation(n_cells)
    ]


class Cells:
    """Cells at some places; counts of a cell depend on its number alone. The last lies alone."""

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

    def groups(self, places: SquarePlaces):
        """All that have a place."""
        for start in range(0, len(self.xy_um_N2), GROUP):
            yield start + np.flatnonzero(places.square(self.xy_um_N2[start : start + GROUP]) >= 0)

    def around(self, folder, low_um, high_um, side_um=200.0) -> np.ndarray:
        """The rows of all cells, those in a rectangle being right."""
        file = write_surroundings(
            folder,
            self.bundle,
            self.read_counts,
            self.panel,
            self.xy_um_N2,
            self.groups,
            side_um,
            (np.array(low_um), np.array(high_um)),
        )
        return file.read(0, len(file))["around"]


@pytest.mark.parametrize("places", [random_places, lattice, spots])
@pytest.mark.parametrize("side_um", [10.0, 200.0])
def test_square_by_square_is_as_all_at_once_and_reads_each_cell_once(bundle, tmp_path, places, side_um):
    cells = Cells(bundle, places(2000))
    every = np.arange(len(cells.xy_um_N2))
    found = cells.around(tmp_path, (-700.0, -700.0), (700.0, 700.0), side_um)
    assert cells.n_read == len(every)
    expected = around_in(bundle, cells.read_counts, cells.panel, CellIndex(cells.xy_um_N2, every * 0))(every)
    np.testing.assert_array_equal(found, expected)
    assert (found[-1] == 0).all()
    assert (found[:-1, -1] == 1).mean() > 0.9
    assert not list(tmp_path.glob("coordinates*"))


@pytest.mark.parametrize("places", [random_places, lattice, spots])
def test_the_cells_of_a_part_are_told_the_same(bundle, tmp_path, places):
    cells = Cells(bundle, places(2000))
    whole = cells.around(tmp_path, (-700.0, -700.0), (700.0, 700.0))
    cells.n_read = 0
    part = cells.around(tmp_path, (-60.0, 10.0), (40.0, 90.0))
    y, x = cells.xy_um_N2[:, 1], cells.xy_um_N2[:, 0]
    inside = (y >= -60) & (y < 40) & (x >= 10) & (x < 90)
    assert inside.sum() > 20
    np.testing.assert_array_equal(part[inside], whole[inside])
    assert cells.n_read < 0.5 * len(y)


def test_memory_does_not_grow_with_the_number_of_cells(bundle, tmp_path):
    peaks = []
    for n_cells in (10_000, 40_000):
        cells = Cells(bundle, random_places(n_cells))
        low, high = cells.xy_um_N2.min(0), cells.xy_um_N2.max(0)
        tracemalloc.start()
        write_surroundings(
            tmp_path, bundle, cells.read_counts, cells.panel, cells.xy_um_N2, cells.groups, 200.0, (low, high)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_places_are_square_after_square():
    xy = np.array([[5.0, 5.0], [15.0, 5.0], [-5.0, 25.0], [6.0, 6.0], [500.0, 0.0]])
    places = SquarePlaces(np.array([0.0, 0.0]), np.array([20.0, 20.0]), 10.0)
    assert (places.square(xy) >= 0).tolist() == [True, True, True, True, False]
    assert [corner.tolist() for corner in places.bounds_um] == [[-10.0, -10.0], [30.0, 30.0]]
    places.count(xy[:4])
    assert places.take(xy[:2]).tolist() == [0, 2]
    assert places.take(xy[2:4]).tolist() == [3, 1]
    table = {(i, j): (start, stop) for i, j, start, stop in places.table().tolist()}
    assert table == {(0, 0): (0, 2), (0, 1): (2, 3), (2, -1): (3, 4)}


def test_squares_near_one_are_read_and_others_are_not(tmp_path):
    file = RecordFile.create(tmp_path / "a.npy", "<i8", 4)
    file.put(np.arange(4), np.arange(4) * 10)
    squares = SquareFile(file, np.array([[0, 0, 0, 2], [1, 1, 2, 3], [2, 2, 3, 4]]))
    assert squares.near((0, 0)).tolist() == [0, 10, 20]
    assert squares.near((5, 5)).tolist() == []
    assert squares.read((2, 2)).tolist() == [30]

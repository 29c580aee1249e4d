"""The cells of a section after edits."""

import numpy as np
import pytest
import shapely
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import SlideSource
from sge2hist.models.bundle import ModelBundle


def _source(counts=((5, 0, 1), (2, 7, 0), (0, 3, 4)), genes=None) -> SlideSource:
    table = csr_array(np.array(counts, np.int32))
    return SlideSource(
        xy_um_N2=np.array([[10.0, 10.0], [20.0, 20.0], [90.0, 90.0]]),
        id_N=np.array(["a", "b", "c"], object),
        type_N=np.array(["Red", "Blue", "Red"], object),
        genes=genes or GenePanel(["A", "B", "C"]),
        read_counts=table.__getitem__,
        bounds_um=(0, 0, 100, 100),
        slide="s",
        um_per_edit_unit=1.0,
        manifest={},
    )


def test_counts_are_scaled_and_set_in_the_cells_of_each_scope():
    edits = [
        Edit(gene="A", factor=2.0),
        Edit(gene="A", factor=3.0, cells=("b",)),
        Edit(gene="B", counts=11.0, of_type="red"),
        Edit(gene="C", counts=0.0, area=shapely.box(0, 0, 15, 15)),
    ]
    edited = EditedSource(_source(), edits)
    assert [rows.tolist() for rows in edited.rows] == [[0, 1, 2], [1], [0, 2], [0]]
    assert edited.read_counts(np.arange(3)).toarray().tolist() == [[10, 11, 0], [12, 7, 0], [0, 11, 4]]
    assert edited.read_counts(np.array([1])).toarray().tolist() == [[12, 7, 0]]
    assert edited.is_edited(np.array([0, 1, 2, -1])).tolist() == [True, True, True, False]


def test_cells_are_removed_moved_and_added_and_scopes_refer_to_the_data():
    edits = [
        Edit(move_um=(50.0, -5.0), cells=("a",)),
        Edit(remove=True, area=shapely.box(0, 0, 15, 15)),  # where the cell lies in the data
        Edit(add_type="Red", at_um=((1.0, 2.0), (3.0, 4.0))),
        Edit(add_type="Red", area=shapely.box(40, 40, 60, 60), spacing_um=10.0),
    ]
    source = _source()
    edited = EditedSource(source, edits)
    assert edited.xy_um_N2.tolist() == [[60, 5], [20, 20], [90, 90]]
    assert source.xy_um_N2[0].tolist() == [10, 10]
    assert edited.kept_N.tolist() == [False, True, True]
    assert [number for number, _ in edited.added] == [2, 3]
    assert edited.added[0][1].tolist() == [[1, 2], [3, 4]]
    lattice = edited.added[1][1]
    nearest = np.sort(np.linalg.norm(lattice[:, None] - lattice[None], axis=-1), 1)[:, 1]
    assert len(lattice) == 3  # rows 8.66 um apart, each shifted by half
    assert ((lattice >= 40) & (lattice <= 60)).all()
    assert np.allclose(nearest, 10)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(remove=True, cells=("x",)), "cell 'x'"),
        (Edit(remove=True, of_type="Green"), "no cells of type 'Green'"),
    ],
)
def test_unknown_cells_and_types_are_refused(edit, message):
    with pytest.raises(InputError, match=message):
        EditedSource(_source(), [edit])


def test_edits_that_meet_no_cell_are_refused(tiny_model):
    bundle = ModelBundle.load(tiny_model)
    name = bundle.types.names[0]
    source = _source(counts=np.eye(3, len(bundle.genes)), genes=bundle.genes)

    def check(**fields):
        EditedSource(source, [Edit(**fields)]).check(bundle)

    check(area=shapely.box(5, 5, 15, 15), set_type=name)
    check(area=shapely.box(50, 50, 80, 80), add_type=name)
    with pytest.raises(InputError, match="no cell lies in"):
        check(area=shapely.box(50, 50, 80, 80), set_type=name)
    with pytest.raises(InputError, match="no cell lies in"):
        check(area=shapely.box(50, 50, 80, 80), of_type="Red", remove=True)
    with pytest.raises(InputError, match="no room in the polygon"):
        check(area=shapely.box(50, 50, 52, 52), add_type=name, spacing_um=500)
    with pytest.raises(InputError, match="at most"):
        check(area=shapely.box(0, 0, 1e6, 1e6), add_type=name)

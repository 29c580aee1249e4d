import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.tissue import make_tissue
from fixtures.visium_hd import write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.readers.tenx.barcode_mappings import read_barcode_mappings


@pytest.mark.parametrize("suffix", [True, False])
def test_cells_of_bins_with_and_without_suffix(tmp_path, suffix):
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1", suffix_in_mappings=suffix, prefix="run_")
    mappings = read_barcode_mappings(truth.outs / "run_barcode_mappings.parquet")
    cells = np.zeros_like(truth.cell_RC)
    cells[mappings.row, mappings.column] = mappings.cell + 1
    np.testing.assert_array_equal(cells, truth.cell_RC)
    nuclei = np.zeros(cells.shape, bool)
    nuclei[mappings.row, mappings.column] = mappings.in_nucleus
    np.testing.assert_array_equal(nuclei, truth.nucleus_RC > 0)
    assert mappings.cell_ids == [f"cellid_{number:09d}-1" for number in range(1, truth.cell_RC.max() + 1)]


def test_many_row_groups(tmp_path):
    table = pa.table(
        {
            "square_002um": [f"s_002um_{i:05d}_00007-1" for i in range(60)],
            "cell_id": [None if i % 3 == 0 else f"cellid_{i % 5 + 1:09d}-1" for i in range(60)],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=9)
    mappings = read_barcode_mappings(tmp_path / "m.parquet")
    expected = [(i, i % 5) for i in range(60) if i % 3]
    assert list(zip(mappings.row.tolist(), mappings.cell.tolist(), strict=True)) == expected
    assert not mappings.in_nucleus.any()


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(InputError, match="no such file"):
        read_barcode_mappings(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read"):
        read_barcode_mappings(path)
    for columns, message in (
        ({"barcode": ["a"]}, "no column"),
        ({"square_002um": ["s_008um_00000_00000-1"], "cell_id": ["cellid_000000001"]}, "barcode"),
        ({"square_002um": ["s_002um_0000x_00000-1"], "cell_id": ["cellid_000000001"]}, "another form"),
        ({"square_002um": ["s_002um_00000_00000-1"], "cell_id": ["cellid_000000000"]}, "no bin that belongs"),
        ({"square_002um": [3], "cell_id": ["cellid_000000001"]}, "m.parquet"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=message):
            read_barcode_mappings(path)

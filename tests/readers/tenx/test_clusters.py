"""Space Ranger's table of clusters: exact, or one clear error; never used in part."""

from pathlib import Path

import pytest

from fixtures.tissue import make_tissue
from fixtures.visium_hd import write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.readers.tenx import space_ranger, visium_hd


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / space_ranger.CLUSTERS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_table_is_read(tmp_path: Path) -> None:
    assert space_ranger.read_clusters(tmp_path) == {}
    folder = write(tmp_path, "Barcode,Cluster\na-1,1\nb-1,12\n")
    assert space_ranger.read_clusters(folder) == {"a-1": "Cluster 1", "b-1": "Cluster 12"}
    notes: list[str] = []
    assert space_ranger.clusters_of(folder, ["b-1", "c-1"], notes) == ["Cluster 12", None]
    assert notes == ["1 of 2 barcodes are in no cluster of Space Ranger"]
    marked = write(tmp_path, b"\xef\xbb\xbfBarcode,Cluster\r\na-1,3\r\n")  # saved by a spreadsheet
    assert space_ranger.read_clusters(marked) == {"a-1": "Cluster 3"}
    without_last_newline = write(tmp_path, "Barcode,Cluster\r\na-1,1\r\nb-1,2")
    assert space_ranger.clusters_of(without_last_newline, ["a-1", "b-1"], notes) == ["Cluster 1", "Cluster 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a table without rows"),
        ("Barcode,Cluster\n", "a table without rows"),
        ("Barcode,Cluster\na-1,1\nb-1", "cluster None"),
        ("Barcode,Cluster\na-1,1\nb-1,", "cluster ''"),
        ("Barcode,Cluster\na-1,x\n", "cluster 'x'"),
        ("Barcode,Cluster\na-1,1\na-1,2\n", "1 barcodes listed twice"),
        ("Barcode,Clust", "a table without rows"),
        ("Code,Cluster\na-1,1\n", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("Barcode,Cluster\na-1,1", "ends within a line, and 1 barcodes not in it"),
        ("Barcode,Cluster\nz-1,1\n", "no barcode of the matrix, but 'z-1'"),
    ],
)
def test_damaged_tables_are_one_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        space_ranger.clusters_of(write(tmp_path, content), ["a-1", "b-1"], [])
    assert "clusters.csv" in str(caught.value)
    assert "remove it" in str(caught.value)


def test_the_reader_refuses_a_table_that_was_cut(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, bin_um=(8,))
    square = truth.outs / "binned_outputs" / "square_008um"
    content = (square / space_ranger.CLUSTERS).read_bytes()
    write(square, content[: len(content) // 2])
    with pytest.raises(InputError, match=r"clusters\.csv"):
        visium_hd.read(square, image=truth.image, bin_um=8)

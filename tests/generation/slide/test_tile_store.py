"""Rows sorted by tile: positions in the file, reading by position and by tile."""

from __future__ import annotations

import numpy as np

from sge2hist.generation.slide.tile_store import ArrayFile, TileLayout, TileStore


def test_rows_by_position(tmp_path):
    rng = np.random.default_rng(0)
    dtype = np.dtype([("xy", "<f8", (2,)), ("n", "<i8")])
    expected = np.zeros(50, dtype)
    file = ArrayFile.create(tmp_path / "r.npy", dtype, 50)
    for positions in np.array_split(rng.permutation(50)[:40], 3):
        rows = np.zeros(len(positions), dtype)
        rows["xy"], rows["n"] = rng.normal(size=(len(positions), 2)), positions
        expected[positions] = rows
        file.write_at(positions, rows)
    assert np.array_equal(np.load(tmp_path / "r.npy"), expected)
    some = rng.permutation(50)[:20]
    assert np.array_equal(file.read_at(some), expected[some])
    assert np.array_equal(ArrayFile(tmp_path / "r.npy").read(45, 99), expected[45:])
    empty = ArrayFile.create(tmp_path / "e.npy", dtype, 0)
    assert len(empty.read(0, 10)) == len(empty.read_at(np.empty(0, np.int64))) == len(np.load(tmp_path / "e.npy")) == 0


def test_positions_are_tile_after_tile():
    xy = np.array([[5.0, 5.0], [15.0, 5.0], [-5.0, 25.0], [6.0, 6.0], [500.0, 0.0]])
    layout = TileLayout(np.array([0.0, 0.0]), np.array([20.0, 20.0]), 10.0)
    assert (layout.tile_number(xy) >= 0).tolist() == [True, True, True, True, False]
    assert [corner.tolist() for corner in layout.bounds_um] == [[-10.0, -10.0], [30.0, 30.0]]
    layout.count(xy[:4])
    assert layout.assign(xy[:2]).tolist() == [0, 2]
    assert layout.assign(xy[2:4]).tolist() == [3, 1]
    table = {(i, j): (start, stop) for i, j, start, stop in layout.table().tolist()}
    assert table == {(0, 0): (0, 2), (0, 1): (2, 3), (2, -1): (3, 4)}


def test_a_tile_is_read_with_its_eight_neighbours(tmp_path):
    file = ArrayFile.create(tmp_path / "a.npy", "<i8", 4)
    file.write_at(np.arange(4), np.arange(4) * 10)
    tiles = TileStore(file, np.array([[0, 0, 0, 2], [1, 1, 2, 3], [2, 2, 3, 4]]))
    assert tiles.read_3x3((0, 0)).tolist() == [0, 10, 20]
    assert tiles.read_3x3((5, 5)).tolist() == []
    assert tiles.read((2, 2)).tolist() == [30]

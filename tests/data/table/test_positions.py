"""Positions in `obsm`: tables by the names of their columns, several arrays, what is refused."""

import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.table.positions import position_key, px_by_name, read_positions

XY = np.random.default_rng(0).uniform(0, 100, (6, 2))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("x", "y"),
        ("X", "Y"),
        ("x_centroid", "y_centroid"),
        ("pxl_col_in_fullres", "pxl_row_in_fullres"),
        ("x_um", "y_um"),
        ("CenterX_global_px", "CenterY_global_px"),
        ("imagecol", "imagerow"),
        (0, 1),
    ],
)
def test_columns_of_a_table_are_taken_by_name(x: object, y: object) -> None:
    straight = pd.DataFrame({x: XY[:, 0], y: XY[:, 1]})
    turned = pd.DataFrame({y: XY[:, 1], "area": 3.0, x: XY[:, 0]})
    for table in (straight, turned):
        np.testing.assert_array_equal(read_positions(table, "spatial", ""), XY)


def test_unknown_and_ambiguous_columns_are_refused() -> None:
    unknown = pd.DataFrame(XY, columns=["row", "col"])
    with pytest.raises(InputError, match=r"columns row, col: no x and y.*to_numpy"):
        read_positions(unknown, "spatial", "")
    both = pd.DataFrame({"x": 1.0, "y": XY[:, 1], "x_um": XY[:, 0], "y_um": XY[:, 1]})
    with pytest.raises(InputError, match="several pairs"):
        read_positions(both, "spatial", "")
    with pytest.raises(InputError, match="text"):
        read_positions(pd.DataFrame({"x": ["a"], "y": ["b"]}), "spatial", "")
    with pytest.raises(InputError, match="shape"):
        read_positions(XY[:, :1], "spatial", "")


def test_positions_in_px_are_preferred_by_name_where_an_image_is_given() -> None:
    keys = ["X_pca", "spatial", "spatial_fullres"]
    assert position_key(keys, "auto", "") == "spatial_fullres"
    assert position_key(keys, "px", "") == "spatial_fullres"
    assert position_key(keys, "um", "") == position_key(keys, "hires", "") == "spatial"
    assert position_key(["spatial_fullres"], "auto", "") == "spatial_fullres"
    with pytest.raises(InputError, match="obsm has X_pca"):
        position_key(["X_pca"], "auto", "")


def test_without_an_image_px_are_recognised_by_name() -> None:
    arrays = {"spatial": XY * 0.5, "spatial_fullres": XY}
    assert px_by_name(arrays, "auto", arrays.__getitem__) == ("spatial", False)
    assert px_by_name(arrays, "px", arrays.__getitem__) == ("spatial_fullres", True)
    arrays["spatial"] = XY
    assert px_by_name(arrays, "auto", arrays.__getitem__) == ("spatial", True)
    assert px_by_name({"spatial_fullres": XY}, "auto", arrays.__getitem__) == ("spatial_fullres", True)

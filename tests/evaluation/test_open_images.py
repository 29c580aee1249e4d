from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sge2hist.api import SGE2Hist
from sge2hist.data.coverage import Coverage
from sge2hist.data.errors import InputError
from sge2hist.evaluation.open_images import open_image_set
from sge2hist.generation.slide.render import generate_slide
from sge2hist.models.image.samplers import SamplerConfig
from tests.evaluation.generated_sets import table_for, write_generated


def test_generated_set_with_latents(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:6]
    images = tissue.fresh(rows, 0)
    z1 = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    path = write_generated(
        tmp_path / "a.generated",
        images,
        table_for(tissue.data, rows, sge2hist_type="Podocyte"),
        {"X_sge2hist_z1": z1},
        toy=True,
    )
    found = open_image_set(path, tissue.data)
    assert (found.name, len(found), found.is_toy, found.names_cells, found.is_shuffled) == ("a", 6, True, True, False)
    np.testing.assert_array_equal(found.images(np.array([2, 0])), images[[2, 0]])
    np.testing.assert_array_equal(found.z1, z1)
    assert found.z2 is None
    assert found.predicted_type_M is not None
    assert set(found.predicted_type_M) == {"Podocyte"}


def test_shuffled_set_is_recognised(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:6]
    obs = table_for(tissue.data, rows, condition_row=np.roll(rows, 1))
    assert open_image_set(
        write_generated(tmp_path / "s.generated", tissue.fresh(rows, 0), obs), tissue.data
    ).is_shuffled


def test_set_made_from_another_preparation_is_matched_by_cell_id(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:4]
    obs = table_for(tissue.data, rows).assign(row=[0, 1, 2, 3], condition_row=[0, 1, 2, 3])
    path = write_generated(tmp_path / "o.generated", tissue.fresh(rows, 0), obs, data_fingerprint="f" * 16)
    found = open_image_set(path, tissue.data)
    assert found.row_M.tolist() == rows.tolist()
    assert not found.is_shuffled
    assert "matched by name" in found.note


def test_folder_with_a_table_numbers_repeats(tissue, tmp_path: Path) -> None:
    rows = np.repeat(tissue.data.rows("test")[:3], 2)
    found = open_image_set(tissue.write(tmp_path / "other tool", tissue.fresh(rows, 0), rows), tissue.data)
    assert found.sample_M.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.name == "other tool"


def test_errors_name_the_repair(tissue, tmp_path: Path) -> None:
    data, rows = tissue.data, tissue.data.rows("test")[:3]
    with pytest.raises(InputError, match=r"images\.csv"):
        open_image_set(tmp_path, data)
    with pytest.raises(InputError, match="no such file"):
        open_image_set(tmp_path / "nothing", data)
    folder = tissue.write(tmp_path / "set", tissue.fresh(rows, 0), rows)
    table = pd.read_csv(folder / "images.csv")
    table.rename(columns={"cell_id": "spot"}).to_csv(folder / "images.csv", index=False)
    with pytest.raises(InputError, match="columns image, cell_id"):
        open_image_set(folder, data)
    table.assign(cell_id=["cell0", "who", "cell1"]).to_csv(folder / "images.csv", index=False)
    with pytest.raises(InputError, match="1 unknown cells, such as who"):
        open_image_set(folder, data)
    table.assign(image=["0000.png", "9999.png", "8888.png"]).to_csv(folder / "images.csv", index=False)
    with pytest.raises(InputError, match="2 missing image files"):
        open_image_set(folder, data)
    broken = [
        b"",
        b"image,cell_id\na,b\nc,d,e,f\n",
        "image,cell_id\nä,b\n".encode("utf-16"),
        b"image,cell_id,seed\n0000.png,cell0,many\n",
        b"image,cell_id,sample\n0000.png,cell0,\n0000.png,cell0,1\n",
    ]
    for content in broken:
        (folder / "images.csv").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            open_image_set(folder, data)
    table.iloc[:0].to_csv(folder / "images.csv", index=False)
    with pytest.raises(InputError, match="no images"):
        open_image_set(folder, data)


def test_images_of_different_size_are_refused(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:2]
    folder = tissue.write(tmp_path / "set", tissue.fresh(rows, 0), rows)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "0001.png")
    with pytest.raises(InputError, match="32 x 32 px"):
        open_image_set(folder, tissue.data).images(np.arange(2))


def test_windows_at_the_margin_of_the_cells_are_not_evaluated(
    tiny_model, tiny_paired, tmp_path: Path, monkeypatch
) -> None:
    """The cells right of 480 um taken away: windows of 64 um that reach far beyond the last cells are excluded, and told of."""
    data, region_um = tiny_paired, (320.0, 0.0, 320.0, 480.0)
    path = generate_slide(
        SGE2Hist.from_pretrained(tiny_model),
        data,
        tmp_path / "m.generated",
        region_um=region_um,
        sampler=SamplerConfig(n_steps=1),
    ).path
    split = next(name for name in ("train", "val", "test") if len(data.rows(name)))
    whole = open_image_set(path, data, split=split)
    assert whole.note == ""
    left = Coverage(np.array([[x, y] for x in range(0, 160, 8) for y in range(0, 480, 8)]), region_um[2:])
    monkeypatch.setattr("sge2hist.evaluation.open_images.Coverage", lambda *given: left)
    inner = open_image_set(path, data, split=split)
    centre_um = data.centre_xy_px[whole.row_M] * data.um_per_px - region_um[:2]
    edge_um = 152 + 25
    kept = centre_um[:, 0] + data.patch_um / 2 <= edge_um
    clear = np.abs(centre_um[:, 0] + data.patch_um / 2 - edge_um) > 8  # 95 % of a window, and the grid
    assert set(inner.row_M) - set(whole.row_M[kept | ~clear]) == set()
    assert set(whole.row_M[kept & clear]) - set(inner.row_M) == set()
    assert 0 < len(inner.row_M) < len(whole.row_M)
    assert f"{len(whole.row_M) - len(inner.row_M)} of {len(whole.row_M)} windows" in inner.note

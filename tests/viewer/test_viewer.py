"""The viewer: every tile is there and right, and in a browser the views load without complaint and move together."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

from sge2hist.data.artifacts import atomic_directory, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.viewer.build import build_viewer, open_layers
from sge2hist.viewer.layers import TypedCells, type_layer
from sge2hist.viewer.pyramid import Layer, n_levels, write_pyramid
from tests.fixtures.browser import PHONE, TABLET, barriers

REGION_UM = (40.0, 80.0, 400.0, 300.0)
PLACES = """views.map((view) => {
  const centre = view.viewer.viewport.getCenter(true);
  return [view.viewer.viewport.getZoom(true), centre.x, centre.y];
})"""


@pytest.fixture(scope="module")
def slide(tiny_paired, tmp_path_factory) -> Path:
    """A generated slide as `generate-slide` writes it, with the real pixels of the region for pixels."""
    path = tmp_path_factory.mktemp("viewer") / "tiny.generated"
    x, y, width, height = (int(value / tiny_paired.um_per_px) for value in REGION_UM)
    pixels = tiny_paired.slides[0].read(x, y, width, height)
    xy_px = tiny_paired.centre_xy_px - (x, y)
    inside = ((xy_px >= 0) & (xy_px < (width, height))).all(1)
    obs = pd.DataFrame({"cell_type": tiny_paired.obs["cell_type"][inside]})
    with atomic_directory(path) as partial:
        write_slide(partial / "slide.ome.tif", pixels, tiny_paired.um_per_px)
        write_slide(partial / "uncertainty.ome.tif", np.full_like(pixels, 40), tiny_paired.um_per_px)
        n = int(inside.sum())
        anndata.AnnData(X=csr_matrix((n, 0), dtype=np.float32), obs=obs, obsm={"spatial": xy_px[inside]}).write_h5ad(
            partial / "cells.h5ad"
        )
        write_manifest(
            partial,
            "generated",
            mode="slide",
            slide="s1",
            region_um=list(REGION_UM),
            um_per_px=2.0,
            seed=0,
            toy=True,
            n_images=0,
            uncertainty_scale=4,
            n_seeds=3,
            data_path=str(tiny_paired.path),
            data_fingerprint=tiny_paired.fingerprint,
        )
    return path


def test_tiles_hold_the_picture_at_every_resolution(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (300, 517, 3)).astype(np.uint8)
    layer = Layer(
        key="a",
        title="",
        note="",
        width_px=517,
        height_px=300,
        suffix="png",
        read=lambda x, y, w, h: picture[y : y + h, x : x + w],
    )
    known = write_pyramid(tmp_path, layer, tile_px=64)
    assert known["levels"] == n_levels(517, 300, 64) == 5
    level = picture
    for number in reversed(range(5)):
        for top in range(0, level.shape[0], 64):
            for left in range(0, level.shape[1], 64):
                with Image.open(tmp_path / str(number) / f"{left // 64}_{top // 64}.png") as tile:
                    assert np.array_equal(np.asarray(tile), level[top : top + 64, left : left + 64])
        n_files = len(list((tmp_path / str(number)).iterdir()))
        assert n_files == -(-level.shape[0] // 64) * -(-level.shape[1] // 64)
        even = np.pad(level, ((0, level.shape[0] % 2), (0, level.shape[1] % 2), (0, 0)), mode="edge").astype(float)
        level = np.floor(even.reshape(even.shape[0] // 2, 2, -1, 2, 3).mean((1, 3)) + 0.5).astype(np.uint8)


def test_transparent_pixels_have_no_part_in_the_colour_of_coarser_tiles(tmp_path):
    picture = np.zeros((2, 4, 4), np.uint8)
    picture[0, 0] = 200, 100, 0, 255
    picture[:, 2:] = 10, 20, 30, 255
    layer = Layer(
        key="a",
        title="",
        note="",
        width_px=4,
        height_px=2,
        suffix="png",
        read=lambda x, y, w, h: picture[y : y + h, x : x + w],
    )
    write_pyramid(tmp_path, layer, tile_px=2)
    with Image.open(tmp_path / "0" / "0_0.png") as tile:
        assert np.asarray(tile).tolist() == [[[200, 100, 0, 64], [10, 20, 30, 255]]]


def test_a_place_has_the_colour_of_its_cell():
    cells = TypedCells(
        xy_px_N2=np.array([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0]]),
        code_N=np.array([0, 1, -1]),
        names=["a", "b"],
        ids=["1", "2", "3"],
    )
    layer, legend = type_layer(cells, 40, 16)
    pixels = layer.read(0, 0, layer.width_px, layer.height_px)
    step = 40 // layer.width_px
    colour = {row["name"]: row["colour"] for row in legend}

    def at(x: int, y: int) -> str:
        *colour, opacity = pixels[y // step, x // step]
        return "#{:02x}{:02x}{:02x}".format(*colour) if opacity == 255 else f"opacity {opacity}"

    assert at(2, 6) == colour["a"] == "#1f77b4"
    assert at(14, 2) == colour["b"]
    assert at(3, 14) == colour["unknown"]
    assert at(38, 14) == "opacity 0"
    assert [row["n"] for row in legend] == [1, 1, 1]


def test_layers_show_the_same_rectangle(slide, tiny_paired):
    layers, legend, cells, _ = open_layers(slide, tiny_paired)
    assert cells is not None
    assert [layer.key for layer in layers] == ["real", "generated", "types", "uncertainty"]
    real, generated = layers[:2]
    assert np.array_equal(real.read(10, 20, 60, 40), generated.read(10, 20, 60, 40))
    assert {row["name"] for row in legend} == {"alpha", "beta", "gamma"}
    assert len({round(layer.width_px / layer.height_px, 2) for layer in layers}) == 1


def test_wrong_input_is_named(slide, tiny_paired, tmp_path, monkeypatch):
    with atomic_directory(tmp_path / "patches.generated") as partial:
        write_manifest(partial, "generated", mode="genes", n_images=0)
    with pytest.raises(InputError, match="generate-slide"):
        build_viewer(tmp_path / "patches.generated", tmp_path / "view")
    with monkeypatch.context() as patched:
        patched.setattr(tiny_paired, "fingerprint", "0" * 16)
        with pytest.raises(InputError, match="another dataset than"):
            build_viewer(slide, tmp_path / "view", data=tiny_paired)
    monkeypatch.setattr(tiny_paired, "slide_ids", ["other"])
    with pytest.raises(InputError, match="no slide 's1'"):
        build_viewer(slide, tmp_path / "view", data=tiny_paired)
    assert not (tmp_path / "view").exists()


def _places(page: Any) -> np.ndarray:
    """[zoom, x, y] of each view, once all are at the same place."""
    page.wait_for_function(
        f"""() => {{
          const views = window.slideViews, places = {PLACES};
          return places.every((place) => place.every((value, i) => Math.abs(value - places[0][i]) < 1e-7));
        }}"""
    )
    return np.array(page.evaluate(f"() => {{ const views = window.slideViews; return {PLACES}; }}"))


def test_linked_views_in_a_browser(slide, tiny_paired, tmp_path, open_page):
    path = build_viewer(slide, tmp_path / "view", data=tiny_paired)
    assert not re.search(r"https?://", path.read_text())
    page = open_page(path, viewport={"width": 1200, "height": 900})
    page.wait_for_function("() => window.slideViews.every((view) => view.viewer.isOpen() && view.tiles)")
    before = _places(page)
    assert before[0, 0] < 2
    page.evaluate("() => slideViews[1].viewer.viewport.zoomTo(3, new OpenSeadragon.Point(0.7, 0.4), true)")
    page.wait_for_function("() => Math.abs(slideViews[0].viewer.viewport.getZoom(true) - 3) < 1e-7")
    zoomed = _places(page)
    assert zoomed[0, 0] == pytest.approx(3)
    page.evaluate("() => slideViews[0].viewer.viewport.panBy(new OpenSeadragon.Point(-0.1, 0.05), true)")
    page.wait_for_function(f"() => slideViews[1].viewer.viewport.getCenter(true).x < {zoomed[0, 1] - 0.09}")
    assert _places(page)[0, 1] == pytest.approx(zoomed[0, 1] - 0.1)
    views = page.evaluate("() => slideViews.map((view) => [view.tiles, view.failed, view.scale.textContent])")
    assert len(views) == 4
    for tiles, failed, scale in views:
        assert tiles >= 1
        assert failed == 0
        assert re.fullmatch(r"\d+ (µm|mm)", scale)


def _overlay(page: Any, key: str) -> np.ndarray:
    """Pixels of the cells over one view, uint8 [height, width, 4]."""
    picture = page.evaluate(f"() => slideViews.find((view) => view.layer.key === '{key}').overlay.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))))


def test_the_legend_filters_types_and_a_click_names_the_cell(slide, tiny_paired, tmp_path, open_page):
    path = build_viewer(slide, tmp_path / "view", data=tiny_paired)
    page = open_page(path, viewport={"width": 1200, "height": 900})
    page.wait_for_function("() => window.slideViews.every((view) => view.viewer.isOpen() && view.place)")
    assert not _overlay(page, "real").any()
    page.get_by_role("button", name="beta").click()
    assert page.get_by_role("button", name="beta").get_attribute("aria-pressed") == "true"
    colour = next(row["colour"] for row in open_layers(slide, tiny_paired)[1] if row["name"] == "beta")
    for key in ("real", "generated", "types"):
        shown = _overlay(page, key)
        solid = shown[shown[..., 3] == 255][:, :3].astype(int)
        assert len(solid)
        assert np.abs(solid - [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).max() <= 8, key
    page.get_by_role("button", name="beta").click()
    assert not _overlay(page, "types").any()

    cells = GeneratedSlide.open(slide).cells()
    number = int(np.argmin(np.abs(cells.obsm["spatial"] - (80, 60)).sum(1)))  # in the middle of the view
    x_px, y_px = cells.obsm["spatial"][number]
    place = page.evaluate(
        """([x, y]) => {
          const view = slideViews[0], point = new OpenSeadragon.Point(x, y), box = view.picture.getBoundingClientRect();
          const at = view.viewer.viewport.viewportToViewerElementCoordinates(point);
          return [box.left + at.x, box.top + at.y];
        }""",
        [x_px * 2.0 / REGION_UM[2], y_px * 2.0 / REGION_UM[2]],
    )
    page.mouse.click(*place)
    cell = page.locator("#cell")
    cell.filter(has_text=f"cell {cells.obs_names[number]},").wait_for()
    x_um, y_um = x_px * 2.0 + REGION_UM[0], y_px * 2.0 + REGION_UM[1]
    expected = f"{cells.obs['cell_type'].iloc[number]}, cell {cells.obs_names[number]}, x {x_um:.1f}, y {y_um:.1f} µm"
    assert cell.text_content() == expected
    assert all(_overlay(page, key).any() for key in ("real", "generated", "types"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers(slide, tiny_paired, tmp_path, open_page, theme):
    path = build_viewer(slide, tmp_path / "view", data=tiny_paired)
    page = open_page(path, color_scheme=theme, viewport=TABLET)
    page.wait_for_function("() => window.slideViews.every((view) => view.viewer.isOpen())")
    page.get_by_role("button", name="beta").click()
    assert barriers(page) == []
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert (shot > 250).mean() < 0.6 if theme == "dark" else True  # no white sheets where there is no picture


def test_a_phone_shows_all_without_scrolling_sideways(slide, tiny_paired, tmp_path, open_page):
    page = open_page(build_viewer(slide, tmp_path / "view", data=tiny_paired), viewport=PHONE)
    page.wait_for_function("() => window.slideViews.every((view) => view.viewer.isOpen())")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert page.get_by_role("button", name="whole image").is_visible()

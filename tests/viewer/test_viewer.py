"""The viewer: every tile is there and right, and in a browser the views load without complaint and move together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
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
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.viewer.build import build_viewer, open_layers
from sge2hist.viewer.layers import TypedCells, type_layer
from sge2hist.viewer.pyramid import Layer, n_levels, write_pyramid

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REGION_UM = (40.0, 80.0, 400.0, 300.0)
PROBE = """<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const views = window.slideViews;
  for (let i = 0; i < 100 && !views.every((v) => v.viewer.isOpen() && v.tiles); i++) await wait(50);
  const place = () => views.map((v) => { const c = v.viewer.viewport.getCenter(true);
    return [v.viewer.viewport.getZoom(true), c.x, c.y]; });
  const before = place();
  const linked = async () => {
    for (let i = 0; i < 100; i++) {
      await wait(50);
      const all = place();
      if (i > 3 && all.every((p) => p.every((v, k) => Math.abs(v - all[0][k]) < 1e-7))) break;
    }
    return place();
  };
  views[1].viewer.viewport.zoomTo(3, new OpenSeadragon.Point(0.7, 0.4), true);
  const zoomed = await linked();
  views[0].viewer.viewport.panBy(new OpenSeadragon.Point(-0.1, 0.05), true);
  const panned = await linked();
  const body = JSON.stringify({ before, zoomed, panned, tiles: views.map((v) => v.tiles),
    failed: views.map((v) => v.failed), scale: views.map((v) => v.scale.textContent) });
  await fetch("http://127.0.0.1:PORT/", { method: "POST", mode: "no-cors", body });
})();
</script></body>"""


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


def test_a_place_has_the_colour_of_its_cell():
    cells = TypedCells(
        xy_px_N2=np.array([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0]]), code_N=np.array([0, 1, -1]), names=["a", "b"]
    )
    layer, legend = type_layer(cells, 40, 16)
    pixels = layer.read(0, 0, layer.width_px, layer.height_px)
    step = 40 // layer.width_px
    colour = {row["name"]: row["colour"] for row in legend}

    def at(x: int, y: int) -> str:
        return "#{:02x}{:02x}{:02x}".format(*pixels[y // step, x // step])

    assert at(2, 6) == colour["a"] == "#1f77b4"
    assert at(14, 2) == colour["b"]
    assert at(3, 14) == colour["unknown"]
    assert at(38, 14) == "#ffffff"
    assert [row["n"] for row in legend] == [1, 1, 1]


def test_layers_show_the_same_rectangle(slide, tiny_paired):
    layers, legend, _ = open_layers(slide, tiny_paired)
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


def _answer_of(page: Path, profile: Path) -> tuple[dict[str, Any], str]:
    """Open a page in a browser, in real time; returns what its probe posts, and what the browser logged."""
    answers: list[bytes] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        server.timeout = 180
        page.write_text(page.read_text().replace("PORT", str(server.server_port)))
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,900",
            "--enable-logging=stderr",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            page.as_uri(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        with open(profile.with_name("log"), "w+") as log, subprocess.Popen(command, stderr=log) as browser:
            try:
                server.handle_request()
            finally:
                browser.terminate()
                browser.wait(30)
            log.seek(0)
            logged = log.read()
    assert answers, logged[-2000:]
    return json.loads(answers[0]), logged


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this computer")
def test_linked_views_in_a_browser(slide, tiny_paired, tmp_path):
    page = build_viewer(slide, tmp_path / "view", data=tiny_paired)
    text = page.read_text()
    assert not re.search(r"https?://", text)
    probed = page.with_name("probed.html")
    probed.write_text(text.replace("</body>", PROBE))
    probe, logged = _answer_of(probed, tmp_path / "profile")
    assert not [line for line in logged.splitlines() if ":CONSOLE" in line]
    assert len(probe["tiles"]) == 4
    assert min(probe["tiles"]) >= 1
    assert max(probe["failed"]) == 0
    assert all(re.fullmatch(r"\d+ (µm|mm)", text) for text in probe["scale"])
    for name in ("before", "zoomed", "panned"):
        assert np.allclose(probe[name], probe[name][0], atol=1e-6), name
    assert probe["before"][0][0] < 2
    assert probe["zoomed"][0][0] == pytest.approx(3)
    assert probe["panned"][0][1] == pytest.approx(probe["zoomed"][0][1] - 0.1)

"""The widget in a real notebook: JupyterLab in a browser shows the page, and the notebook reads edits and image of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

TOKEN = "a-token-of-the-test"
SECONDS = 180  # busy machines
FRAME = 'iframe[title="SGE2Hist explorer"]'


def notebook(*sources: str) -> dict:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "source": source, "metadata": {}, "outputs": [], "execution_count": None}
        for i, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a JupyterLab, and its folder."""
    for package in ("jupyterlab", "ipykernel", "anywidget"):
        pytest.importorskip(package, reason=f"no {package}")
    folder, log = tmp_path / "notebooks", tmp_path / "lab.log"
    folder.mkdir()
    options = ["--no-browser", "--ip=127.0.0.1", "--ServerApp.port_retries=50", f"--ServerApp.root_dir={folder}"]
    options += [
        "--allow-root",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=",
    ]
    home = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=file, stderr=file, env=os.environ | home
        )
    try:
        for _ in range(10 * SECONDS):
            found = re.search(r"(http://127\.0\.0\.1:\d+)/lab", log.read_text())
            if found or server.poll() is not None:
                break
            time.sleep(0.1)
        assert found, log.read_text()
        yield found[1], folder
    finally:
        request = urllib.request.Request(f"{found[1]}/api/shutdown?token={TOKEN}", method="POST") if found else None
        if request is not None:
            urllib.request.urlopen(request, timeout=20)  # its kernels end too
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def test_the_widget_shows_the_page_and_the_notebook_reads_it(lab, chromium, lively_model, tiny_paired) -> None:
    address, folder = lab
    cell = str(tiny_paired.obs.index[len(tiny_paired) // 2 + 20])
    edit = {"scope": {"cell": cell}, "action": {"set_type": "alpha"}}
    content = notebook(
        f"import sge2hist\nexplorer = sge2hist.explore({str(lively_model)!r}, {str(tiny_paired.path)!r})\nexplorer",
        f"explorer.edits = [{edit!r}]\nprint('EDITS', len(explorer.edits), explorer.edits[0]['n_cells'])",
        "print('IMAGE', explorer.image.shape, explorer.image.dtype)",
        "explorer.close()\nprint('CLOSED')",
    )
    (folder / "explore.ipynb").write_text(json.dumps(content))
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    try:
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.goto(f"{address}/lab/tree/explore.ipynb?token={TOKEN}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # a cell that is run earlier is forgotten
        page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()

        def run_next(expected: str) -> str:
            page.keyboard.press("Shift+Enter")
            shown = page.locator(".jp-OutputArea-output", has_text=expected)
            shown.wait_for()
            return shown.inner_text()

        page.keyboard.press("Shift+Enter")
        page.locator(FRAME).wait_for()
        frame = page.locator(FRAME).element_handle().content_frame()
        frame.wait_for_function(
            "() => window.explorer && explorer.views.shown.every((pane) => pane.isOpen && pane.place)"
        )
        assert run_next("EDITS").split() == ["EDITS", "1", "1"]
        page.locator(FRAME).scroll_into_view_if_needed()
        box = frame.locator(".pane .picture").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        frame.wait_for_function(
            "() => { const r = explorer.store.get('result'); return r && r.stage === 'full' && !r.pending; }"
        )
        if folder := os.environ.get("SGE2HIST_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "widget.png")
        page.locator(".jp-Notebook .jp-Cell .cm-content").nth(2).click()
        assert run_next("IMAGE").split("IMAGE")[1].strip() == "(32, 32, 3) uint8"
        run_next("CLOSED")
    finally:
        context.close()

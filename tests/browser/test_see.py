"""Slides, cells, colours, legend and links, against the cells of the dataset itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.explorer_page import GENERATED, REAL
from tests.fixtures.paired import SPACING_UM, TYPES

ROW, COLUMN, SIDE = 20, 10, 40
CELL = f"cell_{ROW * SIDE + COLUMN}"
X_UM, Y_UM = (COLUMN + 0.5) * SPACING_UM, (ROW + 0.5) * SPACING_UM
TYPE = TYPES[(COLUMN // 6) % 3]
IN_LINK = """() => {
  const at = new URLSearchParams(location.hash.slice(1)).get("at"), rect = explorer.views.lead.visibleUm();
  return at && at.split(",").every((value, i) => Math.abs(value - rect[i]) < 0.3);
}"""
"""The address names the rectangle that is shown."""


def test_both_slides_open_and_move_together(explore):
    explorer = explore()
    tiles = "(kind) => explorer.views.panes.map((pane) => pane[kind])"
    explorer.until(lambda: all(explorer.page.evaluate(tiles, "loadedTiles")))
    assert not any(explorer.page.evaluate(tiles, "failedTiles"))
    whole = explorer.page.locator(".scale").first.text_content()
    explorer.page.mouse.move(*explorer.at(X_UM, Y_UM))
    for _ in range(4):
        explorer.move(lambda: explorer.page.mouse.wheel(0, -100))
    real, generated = explorer.places()
    assert real[0] > 1.5
    assert real == pytest.approx(generated, abs=1e-6)
    assert explorer.page.locator(".scale").first.text_content() != whole
    explorer.move(lambda: explorer.drag((X_UM, Y_UM), (X_UM + 50, Y_UM + 20)))
    assert explorer.places()[0] == pytest.approx(explorer.places()[1], abs=1e-6)
    assert explorer.places()[0, 1] < real[1]


def test_the_scale_bar_is_true(explore):
    explorer = explore()
    explorer.show(100, 100, 300, 200)
    bar = explorer.page.locator(".scale").first
    length_um = float(bar.text_content().split()[0])
    px = explorer.at(100 + length_um, 100)[0] - explorer.at(100, 100)[0]
    assert bar.bounding_box()["width"] == pytest.approx(px, abs=1.5)


def test_the_curtain_moves_by_keyboard_and_pointer(explore):
    explorer = explore()
    explorer.page.keyboard.press("2")
    curtain = explorer.page.get_by_role("slider", name="Curtain between the real and the generated slide")
    curtain.focus()
    curtain.press("ArrowRight")
    assert curtain.get_attribute("aria-valuenow") == "52"
    box = explorer.page.locator("#panes").bounding_box()
    handle = curtain.bounding_box()
    explorer.page.mouse.move(handle["x"] + 7, handle["y"] + 40)
    explorer.page.mouse.down()
    explorer.page.mouse.move(box["x"] + box["width"] / 4, handle["y"] + 60, steps=4)
    explorer.page.mouse.up()
    assert curtain.get_attribute("aria-valuenow") == "25"
    explorer.click(X_UM, Y_UM)  # left of the curtain lies the real slide, and it takes the click
    explorer.choose(CELL)


def test_a_click_chooses_the_cell_of_the_dataset(explore, tiny_paired):
    explorer = explore()
    explorer.show(100, 250, 150, 150)
    explorer.click(X_UM + 2, Y_UM - 2)
    explorer.choose(CELL)
    panel = explorer.page.get_by_role("tabpanel", name="Cell")
    assert panel.locator(".title-line").text_content() == TYPE
    counts = tiny_paired.counts(np.array([ROW * SIDE + COLUMN])).toarray()[0]
    top = panel.locator("tbody tr", has=explorer.page.get_by_role("button", name="change")).first
    symbol = top.locator("button").first.text_content()
    assert counts[tiny_paired.genes.symbols.index(symbol)] == counts.max()
    assert int(top.locator("td").nth(1).text_content()) == counts.max()
    assert f"{counts.sum()} counts of {(counts > 0).sum()} genes" in panel.text_content()
    explorer.settle()
    shown = panel.locator("figure img").evaluate_all("(images) => images.map((image) => image.naturalWidth)")
    assert len(shown) == 2
    assert min(shown) > 0


def test_samples_and_cells_like_this(explore):
    explorer = explore(f"cell={CELL}")
    explorer.settle()
    explorer.button("More samples")
    explorer.page.wait_for_function("() => document.querySelectorAll('#tab-cell figure').length === 6")
    sources = (
        explorer.page.locator("#tab-cell .pictures")
        .nth(1)
        .locator("img")
        .evaluate_all("(all) => all.map((i) => i.src)")
    )
    assert len(set(sources)) == 4
    explorer.button("Cells like this")
    explorer.page.wait_for_function("() => explorer.store.get('similar')?.length")
    similar = explorer.value("similar")
    assert CELL not in [cell["id"] for cell in similar]
    explorer.page.get_by_role("button", name=f"Go to {similar[0]['id']}").click()
    explorer.choose(similar[0]["id"])


def colours_on(explorer, pane: int) -> set[str]:
    """Opaque colours of the marks of a pane, as #rrggbb."""
    return set(
        explorer.page.evaluate(
            """(number) => {
              const { canvas } = explorer.views.panes[number];
              const copy = new OffscreenCanvas(canvas.width, canvas.height);
              const context = copy.getContext('2d', { willReadFrequently: true });
              context.drawImage(canvas, 0, 0);
              const { buffer } = context.getImageData(0, 0, copy.width, copy.height).data;
              const found = new Set(new Uint32Array(buffer));
              const bytes = [0, 8, 16];
              const hex = (value) => bytes.map((shift) => ((value >> shift) & 255).toString(16).padStart(2, '0')).join('');
              return [...found].filter((value) => value >>> 24 === 255).map((value) => `#${hex(value)}`);
            }""",
            pane,
        )
    )


def test_the_legend_filters_both_slides(explore):
    explorer = explore()
    explorer.page.get_by_role("slider", name="Cells", exact=True).fill("100")
    explorer.show(0, 0, 400, 400)
    info = explorer.page.evaluate("async () => (await fetch('api/info')).json()")
    colour = {one["name"]: one["colour"] for one in info["types"] if one["n"]}
    for pane in (REAL, GENERATED):
        explorer.until(lambda pane=pane: set(colour.values()) <= colours_on(explorer, pane))
    explorer.page.get_by_role("checkbox", name="beta").uncheck()
    for pane in (REAL, GENERATED):
        explorer.until(lambda pane=pane: colour["beta"] not in colours_on(explorer, pane))
        shown = colours_on(explorer, pane)
        assert {colour["alpha"], colour["gamma"]} <= shown


def test_a_link_opens_the_same_view(explore):
    explorer = explore()
    explorer.page.get_by_role("radio", name="Gene", exact=True).click()
    explorer.search("Gene that colours the cells", "gene7")
    explorer.show(120, 200, 160, 120)
    explorer.click(X_UM, Y_UM)
    explorer.choose(CELL)
    explorer.page.keyboard.press("4")
    explorer.page.wait_for_function(
        "() => location.hash.includes('mode=generated') && location.hash.includes('gene:GENE7')"
    )
    explorer.page.wait_for_function(IN_LINK)
    explorer.settle()
    again = explore(explorer.page.url.partition("#")[2])
    again.choose(CELL)
    assert again.value("colour") == "gene:GENE7"
    assert again.value("mode") == "generated"
    assert again.page.locator(".pane:visible").count() == 1
    rect = [one.page.evaluate("() => explorer.views.lead.visibleUm()") for one in (explorer, again)]
    assert rect[0] == pytest.approx(rect[1], abs=0.3)


def test_the_colour_of_a_gene_follows_its_counts(explore, tiny_paired):
    explorer = explore("colour=gene:GENE7")
    explorer.page.wait_for_function("() => explorer.store.get('scale') !== null")
    session = explorer.value("state")["session"]
    url = f"api/sessions/{session}/cells?x=0&y=0&width=640&height=640&limit=2000&colour=gene:GENE7"
    cells = explorer.page.evaluate("async (url) => (await fetch(url)).json()", url)
    counts = tiny_paired.counts(np.arange(SIDE * SIDE)).toarray()
    truth = np.log1p(1e4 * counts[:, 7] / counts.sum(1))
    value = dict(zip(cells["id"], cells["value"], strict=True))
    assert [value[name] for name in tiny_paired.obs.index] == pytest.approx(truth, rel=1e-3)
    assert cells["scale"]["quantiles"][4] == pytest.approx(np.quantile(truth, 0.95), rel=0.02)


NO_VALUE = "#b8bcc2"


@pytest.mark.parametrize(("name", "unit"), [("Spread", "standard deviation"), ("Novelty", "")])
def test_every_cell_gets_the_colour_of_its_score(explore, monkeypatch, name, unit):
    """Also where the server computes the scores in many parts: no cell stays grey."""
    from sge2hist.explorer import scores

    monkeypatch.setattr(scores, "MAX_NEW_SCORES", 200)
    explorer = explore()
    explorer.page.get_by_role("slider", name="Cells", exact=True).fill("100")
    explorer.page.get_by_role("radio", name=name, exact=True).click()
    explorer.page.wait_for_function("() => explorer.store.get('scale') !== null")
    explorer.until(lambda: NO_VALUE not in colours_on(explorer, REAL))
    explorer.until(lambda: len(colours_on(explorer, REAL)) > 20)  # a ramp, not a few types
    assert explorer.page.locator("#cells .ends").text_content().find(unit) >= 0
    assert explorer.page.locator("#cells .bar").get_attribute("aria-label").startswith("colours from")


def test_an_unknown_gene_is_an_error_that_says_so(explore):
    explorer = explore("colour=gene:NOSUCH")
    message = explorer.page.get_by_role("alert")
    message.wait_for()
    assert "NOSUCH" in message.text_content()
    assert explorer.value("colour") == "type"
    explorer.page.watch.forgive("422")


def test_tabs_do_not_disturb_each_other(explore):
    first, second = explore(f"cell={CELL}"), explore(f"cell={CELL}")
    assert first.value("state")["session"] != second.value("state")["session"]
    first.tab("Change")
    first.add_gene("GENE3")
    first.slider("GENE3").fill("2")
    first.settle()
    assert len(first.edits) == 1
    second.page.evaluate("() => explorer.session.refresh()")
    assert second.edits == []

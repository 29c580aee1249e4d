"""Changes by hand: what the picture, the list and the exported command make of them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.explorer_page import pixels
from tests.browser.test_see import CELL, SIDE, X_UM, Y_UM
from tests.fixtures.paired import TYPES

RING_UM = [(80.0, 240.0), (240.0, 240.0), (240.0, 400.0), (80.0, 400.0)]


def cells_inside(tiny_paired, ring) -> np.ndarray:
    from shapely import Polygon, contains_xy

    return np.flatnonzero(contains_xy(Polygon(ring), tiny_paired.centre_xy_px * tiny_paired.um_per_px))


def outlined(explore, ring=RING_UM):
    """The explorer with a polygon that was outlined by clicks and closed by a double click."""
    explorer = explore()
    explorer.show(40, 200, 280, 240)
    explorer.tool("Polygon")
    for corner in ring[:-1]:
        explorer.click(*corner)
    explorer.page.mouse.dblclick(*explorer.at(*ring[-1]))
    explorer.page.wait_for_function("() => explorer.store.get('scope')?.polygon_um")
    return explorer


def test_a_gene_changes_the_picture_and_undo_takes_it_back(explore):
    explorer = explore(f"cell={CELL}")
    plain = explorer.settle()
    assert plain["after"] == plain["before"]
    assert plain["mean_difference"] == 0
    explorer.tab("Change")
    explorer.add_gene("GENE6")
    for dose in ("2", "3", "4"):  # one drag
        explorer.slider("GENE6").evaluate(
            "(input, dose) => { input.value = dose; input.dispatchEvent(new Event('input')); }", dose
        )
    explorer.slider("GENE6").evaluate("(input) => input.dispatchEvent(new Event('change'))")
    changed = explorer.settle()
    assert [edit["action"] for edit in explorer.edits] == [{"gene": "GENE6", "factor": 4}]
    assert changed["before"] == plain["before"]
    before, after = pixels(changed["before"]).astype(int), pixels(changed["after"]).astype(int)
    assert (before != after).any()
    assert changed["mean_difference"] == pytest.approx(np.abs(before - after).mean(), abs=6e-4)
    row = explorer.page.locator("[data-gene=GENE6]")
    own, now = row.locator(".counts").text_content().removeprefix("counts in this cell: ").split(" → ")
    assert int(now) == 4 * int(own)
    explorer.page.keyboard.press("Control+z")
    assert explorer.settle()["after"] == plain["after"]
    assert explorer.edits == []
    assert explorer.slider("GENE6").count() == 0 or explorer.slider("GENE6").input_value() == "1"
    explorer.button("Redo")
    assert explorer.settle()["after"] == changed["after"]


def test_a_newer_edit_ends_the_older_picture(explore):
    explorer = explore(f"cell={CELL}")
    explorer.settle()
    explorer.tab("Change")
    explorer.add_gene("GENE7")
    seen = []
    explorer.page.on("request", lambda request: seen.append(request) if request.url.endswith("/render") else None)
    for dose in np.linspace(0, 4, 9):
        explorer.slider("GENE7").evaluate(
            "(input, dose) => { input.value = dose; input.dispatchEvent(new Event('input')); }", str(dose)
        )
        explorer.page.wait_for_timeout(60)
    result = explorer.settle()
    assert explorer.edits[0]["action"]["factor"] == 4
    assert result["revision"] == explorer.value("state")["revision"]
    finished = [request for request in seen if request.failure is None]
    assert 1 <= len(finished) <= len(seen)
    explorer.button("Undo")
    explorer.settle()
    assert explorer.edits[:1] == [] or explorer.edits[0]["action"]["factor"] < 4


def test_a_lasso_takes_the_cells_inside_it(explore, tiny_paired):
    explorer = explore()
    explorer.show(40, 200, 280, 240)
    explorer.page.keyboard.press("l")
    explorer.drag(*RING_UM, RING_UM[0])
    explorer.page.wait_for_function("() => explorer.store.get('scope')?.polygon_um")
    explorer.settle()
    explorer.add_gene("GENE0")
    explorer.slider("GENE0").fill("0")
    explorer.settle()
    (edit,) = explorer.edits
    assert edit["n_cells"] == len(cells_inside(tiny_paired, edit["scope"]["polygon_um"]))
    assert edit["n_cells"] == pytest.approx(100, abs=12)


def test_the_exported_command_makes_the_identical_picture(explore, tiny_paired, tmp_path, monkeypatch):
    from sge2hist.cli.main import main

    explorer = outlined(explore)
    explorer.page.get_by_label("New type").select_option("gamma")
    explorer.add_gene("GENE12")
    explorer.slider("GENE12").fill("2.5")
    result = explorer.settle()
    assert {edit["n_cells"] for edit in explorer.edits} == {len(cells_inside(tiny_paired, RING_UM))}
    shown = pixels(result["after"])
    assert (shown != pixels(result["before"])).any()
    explorer.tab("Edits")
    with explorer.page.expect_download() as download:
        explorer.button("Download GeoJSON")
    command = explorer.page.get_by_role("group", name="Command line")
    explorer.page.wait_for_function("() => document.querySelector('#tab-edits pre').textContent.startsWith('sge2hist')")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    assert download.value.suggested_filename in command.text_content()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command.text_content()))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    (output,) = tmp_path.glob("*.generated")
    assert np.array_equal(picture_of(output), shown)
    with explorer.page.expect_download() as download:
        explorer.button("PNG")
    assert np.array_equal(np.asarray(Image.open(download.value.path()).convert("RGB")), shown)


def picture_of(output: Path) -> np.ndarray:
    from sge2hist.data.generated import GeneratedSlide

    image = GeneratedSlide.open(output).image
    return image.read(0, 0, image.width_px, image.height_px)


def test_cells_are_added_moved_and_removed_by_hand(explore):
    explorer = explore()
    explorer.show(120, 280, 120, 120)
    explorer.tool("Add cell")
    explorer.page.get_by_label("Type of the added cell", exact=True).select_option("beta")
    explorer.click(X_UM + 8, Y_UM + 8)
    explorer.click(X_UM + 24, Y_UM + 8)
    explorer.page.wait_for_function("() => explorer.store.get('state').edits[0]?.action.at_um.length === 2")
    places = explorer.edits[0]["action"]["at_um"]
    assert np.abs(np.array(places) - [(X_UM + 8, Y_UM + 8), (X_UM + 24, Y_UM + 8)]).max() < 1
    explorer.tool("Choose")
    explorer.page.wait_for_timeout(400)
    explorer.click(X_UM + 24, Y_UM + 8)
    explorer.choose("added_1")
    explorer.page.keyboard.press("m")
    explorer.drag((X_UM + 24, Y_UM + 8), (X_UM + 30, Y_UM + 14))
    explorer.page.wait_for_function(
        "(old) => explorer.store.get('state').edits[0].action.at_um[1][0] > old", arg=places[1][0] + 3
    )
    explorer.tab("Change")
    explorer.button("Remove")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits[0].action.at_um.length === 1")
    explorer.tool("Choose")
    explorer.click(X_UM, Y_UM)
    explorer.choose(CELL)
    explorer.page.keyboard.press("m")
    explorer.click(X_UM + 5, Y_UM)
    explorer.page.wait_for_function("() => explorer.store.get('state').edits.length === 2")
    assert explorer.edits[1]["scope"] == {"cell": CELL}
    assert explorer.edits[1]["action"]["move_um"] == pytest.approx([5, 0], abs=1)
    explorer.button("Remove")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits.length === 3")
    assert explorer.edits[2]["action"] == {"remove": True}
    explorer.page.wait_for_function("() => explorer.store.get('cell')?.removed || explorer.store.get('cell') === null")


def test_all_cells_of_a_type_in_view(explore, tiny_paired):
    explorer = explore(f"cell={CELL}")
    explorer.show(96, 96, 192, 192)
    explorer.tab("Change")
    explorer.page.get_by_role("radio", name="Type in view").click()
    x, y, width, height = explorer.value("scope")["rectangle_um"]
    name = explorer.value("scope")["type"]
    assert name == TYPES[(CELL_COLUMN // 6) % 3]
    explorer.add_gene("GENE5")
    explorer.slider("GENE5").fill("3")
    explorer.settle()
    xy_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    inside = ((xy_um >= (x, y)) & (xy_um <= (x + width, y + height))).all(1)
    inside &= (tiny_paired.obs["cell_type"] == name).to_numpy()
    assert explorer.edits[0]["n_cells"] == inside.sum()


CELL_COLUMN = int(CELL.removeprefix("cell_")) % SIDE


def test_edits_are_saved_opened_and_named(explore, tmp_path):
    explorer = outlined(explore)
    explorer.page.get_by_label("Type of the added cells").select_option("alpha")
    explorer.button("Add cells")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits.length === 1")
    assert explorer.edits[0]["n_cells"] == pytest.approx((160 / 12) ** 2, rel=0.25)
    explorer.tab("Edits")
    name = explorer.page.get_by_placeholder("add a name")
    name.fill("more alpha")
    name.press("Tab")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits[0].name === 'more alpha'")
    with explorer.page.expect_download() as download:
        explorer.button("Download GeoJSON")
    path = tmp_path / "edits.geojson"
    download.value.save_as(path)
    assert len(json.loads(path.read_text())["features"]) == 1
    explorer.page.get_by_label("Name of the list").fill("alpha 1")
    explorer.button("Save")
    explorer.page.get_by_label("Saved lists").wait_for()
    explorer.page.get_by_role("checkbox", name="Use the edit more alpha").uncheck()
    explorer.page.wait_for_function("() => explorer.store.get('state').edits[0].enabled === false")
    explorer.button("Delete all")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits.length === 0")
    explorer.button("Load")
    explorer.page.wait_for_function("() => explorer.store.get('state').edits.length === 1")
    assert explorer.edits[0]["enabled"]
    explorer.button("Delete all")
    explorer.page.get_by_label("File of edits").set_input_files(path)
    explorer.page.wait_for_function("() => explorer.store.get('state').edits[0]?.name === 'more alpha'")


def test_eight_doses_and_their_middle(explore):
    explorer = explore(f"cell={CELL}")
    plain = explorer.settle()
    explorer.tab("Change")
    explorer.add_gene("GENE6")
    explorer.button("Generate 8 doses")
    explorer.page.wait_for_function("() => explorer.store.get('doseTarget') !== null")
    images = explorer.page.locator(".strip img").evaluate_all("(all) => all.map((image) => image.src)")
    assert len(images) == 8
    assert images[4] == plain["after"]  # once its own counts
    assert len(set(images)) > 2


def test_seed_guidance_and_steps(explore):
    explorer = explore(f"cell={CELL}")
    plain = explorer.settle()
    explorer.tab("Change")
    explorer.button("Another seed")
    other = explorer.settle()
    assert other["after"] != plain["after"]
    assert other["mean_difference"] == 0
    explorer.page.get_by_label("Seed", exact=True).fill("0")
    explorer.page.get_by_label("Seed", exact=True).press("Enter")
    assert explorer.settle()["after"] == plain["after"]
    explorer.page.get_by_label("Steps", exact=True).fill("2")
    explorer.page.get_by_label("Steps", exact=True).press("Enter")
    assert explorer.settle()["after"] != plain["after"]

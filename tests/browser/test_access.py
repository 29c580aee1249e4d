"""Nobody is kept out: axe in light and dark, at desktop and tablet width; everything by keyboard; nothing runs off the page."""

from __future__ import annotations

import pytest

from tests.browser.test_see import CELL, X_UM, Y_UM
from tests.fixtures.browser import DESKTOP, TABLET, barriers


@pytest.mark.parametrize(("theme", "viewport"), [("light", DESKTOP), ("dark", TABLET)])
def test_no_barriers(explore, theme, viewport):
    explorer = explore(f"cell={CELL}", color_scheme=theme, viewport=viewport)
    explorer.settle()
    assert barriers(explorer.page) == []
    explorer.tab("Change")
    explorer.add_gene("GENE1")
    explorer.slider("GENE1").fill("0")
    explorer.page.get_by_role("combobox", name="Add a gene").fill("gene")
    explorer.page.get_by_role("listbox", name="Add a gene").wait_for()
    explorer.settle()
    assert barriers(explorer.page) == []
    explorer.tab("Edits")
    explorer.page.wait_for_function("() => document.querySelector('#tab-edits pre').textContent !== ''")
    explorer.page.keyboard.press("d")
    assert barriers(explorer.page) == []
    if viewport == TABLET:
        explorer.button("Cells")
        assert barriers(explorer.page) == []
    sizes = explorer.page.evaluate(
        "() => [document.documentElement.scrollWidth - innerWidth, document.documentElement.scrollHeight - innerHeight]"
    )
    assert max(sizes) <= 0


def test_by_keyboard_alone(explore):
    explorer = explore()
    page = explorer.page
    explorer.show(X_UM - 80, Y_UM - 80, 160, 160)
    page.evaluate("() => document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.getAttribute('role') === 'application'"):
            break
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')").startswith("Real")
    assert page.locator(".pane .centre").first.is_visible()
    page.keyboard.press("Enter")
    explorer.choose(CELL)
    page.keyboard.press("p")
    for keys in ([], ["ArrowRight"] * 2, ["ArrowDown"] * 2, ["ArrowLeft"] * 2):
        for key in keys:
            explorer.move(lambda key=key: explorer.page.keyboard.press(key))
        page.keyboard.press("Enter")
    assert page.evaluate("() => explorer.store.get('tool')") == "polygon"
    explorer.move(lambda: explorer.page.keyboard.press("ArrowUp"))
    explorer.move(lambda: explorer.page.keyboard.press("ArrowUp"))
    page.keyboard.press("Enter")  # on the first corner
    page.wait_for_function("() => explorer.store.get('scope')?.polygon_um?.length >= 4")
    page.keyboard.press("Escape")
    page.wait_for_function("() => explorer.store.get('outline') === null")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    tabs = page.get_by_role("tab")
    tabs.nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tabpanel", name="Edits").is_visible()
    page.keyboard.press("Home")
    assert page.get_by_role("tabpanel", name="Cell").is_visible()


def test_keys_stay_with_the_field_that_has_the_focus(explore):
    explorer = explore(f"cell={CELL}")
    explorer.settle()
    explorer.tab("Change")
    box = explorer.page.get_by_role("combobox", name="Add a gene")
    box.press_sequentially("d1l")
    assert box.input_value() == "d1l"
    assert explorer.value("mode") == "split"
    assert explorer.value("tool") == "choose"
    box.press("Escape")
    assert explorer.page.get_by_role("listbox", name="Add a gene").count() == 0
    explorer.page.wait_for_timeout(300)  # matches that were asked for before it do not open the list again
    assert explorer.page.get_by_role("listbox", name="Add a gene").count() == 0


def test_enter_takes_the_gene_that_was_typed_whatever_is_still_listed(explore):
    explorer = explore(f"cell={CELL}")
    explorer.settle()
    explorer.tab("Change")
    box = explorer.page.get_by_role("combobox", name="Add a gene")
    box.fill("GENE1")
    explorer.page.get_by_role("listbox", name="Add a gene").get_by_role("option").first.wait_for()
    box.fill("gene7")
    box.press("Enter")  # before the list follows
    explorer.slider("GENE7").wait_for()
    assert explorer.slider("GENE1").count() == 0

"""The explorer's page as a user handles it: places in um of the section, controls by their names."""

from __future__ import annotations

import base64
import io
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

REAL, GENERATED = 0, 1


class ExplorerPage:
    """Wraps a page that shows the explorer."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.wait_for_function(
            "() => window.explorer && explorer.views.shown.every((pane) => pane.isOpen && pane.place)"
        )
        page.wait_for_function("() => document.getElementById('cells-shown').textContent !== ''")

    # --- the slides ---------------------------------------------------------------------------------------------------
    def show(self, x: float, y: float, width: float, height: float) -> None:
        """Move the view to a rectangle in um."""
        self.page.evaluate("(rect) => explorer.views.lead.show(rect, true)", [x, y, width, height])
        self.still()

    def move(self, act: Callable[[], object]) -> None:
        """Do what moves the view, and wait until the view has moved and stands still."""
        place = "() => JSON.stringify(explorer.views.lead.placeOf())"
        before = self.page.evaluate(place)
        act()
        self.page.wait_for_function(f"(before) => ({place})() !== before", arg=before)
        self.still()

    def still(self) -> None:
        """Wait until no pane has moved for twenty frames: counted in frames, so that a busy machine gets the time it takes."""
        self.page.evaluate(
            """() => new Promise((resolve) => {
              let last = "", frames = 0;
              const look = () => {
                const now = JSON.stringify(explorer.views.panes.map((pane) => [pane.placeOf(), pane.place]));
                frames = now === last ? frames + 1 : 0;
                last = now;
                if (frames < 20) requestAnimationFrame(look);
                else resolve();
              };
              look();
            })"""
        )

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition of the page holds, for 30 s at most: what comes from the server takes its time."""
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "the page did not become as expected in 30 s"
            self.page.wait_for_timeout(100)

    def at(self, x_um: float, y_um: float, pane: int = REAL) -> tuple[float, float]:
        """Where a place of the section is on the screen."""
        x, y = self.page.evaluate(
            """([number, x, y]) => {
              const pane = explorer.views.panes[number], at = pane.screenOf([x, y]), box = pane.box.getBoundingClientRect();
              return [at.x + box.left, at.y + box.top];
            }""",
            [pane, x_um, y_um],
        )
        return x, y

    def click(self, x_um: float, y_um: float, pane: int = REAL) -> None:
        self.page.mouse.click(*self.at(x_um, y_um, pane))
        self.page.wait_for_timeout(350)  # two clicks that are sooner than this are a double click

    def drag(self, *places_um: tuple[float, float]) -> None:
        """Press at the first place, move along the others, and let go."""
        self.page.mouse.move(*self.at(*places_um[0]))
        self.page.mouse.down()
        for place in places_um[1:]:
            self.page.mouse.move(*self.at(*place), steps=5)
        self.page.mouse.up()

    def places(self) -> np.ndarray:
        """[zoom, x, y, width] of each pane."""
        return np.array(self.page.evaluate("() => explorer.views.panes.map((pane) => pane.placeOf())"))

    def tool(self, name: str) -> None:
        self.page.get_by_role("radio", name=name, exact=True).click()

    # --- what it holds ------------------------------------------------------------------------------------------------
    def value(self, name: str) -> Any:
        """A value of the page's store."""
        return self.page.evaluate("(name) => explorer.store.get(name)", name)

    @property
    def edits(self) -> list[dict[str, Any]]:
        return list(self.value("state")["edits"])

    def settle(self) -> dict[str, Any]:
        """Wait until nothing is under way and the picture is of the present edits; returns the result."""
        self.page.wait_for_function("() => explorer.session.queue.then(() => true)")
        self.page.wait_for_timeout(60)
        self.page.wait_for_function(
            "() => { const r = explorer.store.get('result'); return r && r.stage === 'full' && !r.pending"
            " && r.revision === explorer.session.state.revision; }"
        )
        return dict(self.value("result"))

    def choose(self, cell: str) -> None:
        self.page.wait_for_function("(id) => explorer.store.get('cell')?.id === id", arg=cell)

    # --- the panels ---------------------------------------------------------------------------------------------------
    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def search(self, name: str, text: str) -> None:
        """Take the first match of a field with matches."""
        box = self.page.get_by_role("combobox", name=name)
        box.fill(text)
        self.page.get_by_role("listbox", name=name).and_(self.page.locator(f"[data-of='{text}']")).wait_for()
        box.press("Enter")

    def add_gene(self, symbol: str) -> None:
        self.search("Add a gene", symbol)
        self.slider(symbol).wait_for()

    def slider(self, symbol: str) -> Any:
        return self.page.get_by_role("slider", name=f"Dose of {symbol}", exact=True)

    def button(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()


def pixels(data_url: str) -> np.ndarray:
    """uint8 [height, width, 3] of a picture that the page shows."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"))

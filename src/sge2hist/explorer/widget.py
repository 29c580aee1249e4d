"""The page of the explorer as a widget of a notebook (anywidget): a frame, in Jupyter and in VS Code."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

SCRIPT = """
export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    frame.src = model.get("url");
    frame.title = "SGE2Hist explorer";
    frame.style.cssText = `width: 100%; height: ${model.get("height")}px; border: 0`;
    el.appendChild(frame);
  },
};
"""


class ExplorerWidget(anywidget.AnyWidget):
    """Shows the page at `url`, `height` px high."""

    _esm = SCRIPT
    url = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(720).tag(sync=True)


def widget_of(url: str) -> Any:
    """The widget of a running explorer."""
    return ExplorerWidget(url=url)

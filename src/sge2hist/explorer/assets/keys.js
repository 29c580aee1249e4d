// The keyboard: one table, shown in a dialog and acted on.

import { byId, el, fill } from "./dom.js";

const ROWS = [
  ["Arrows, + and −, 0", "move, zoom and whole section, while a slide has the focus"],
  ["Enter", "act at the centre of the slide: choose the cell, set a corner, add or move a cell"],
  ["V L P A M", "tools: choose, lasso, polygon, add a cell, move the cell"],
  ["Backspace", "take back the last corner of a polygon"],
  ["Escape", "stop outlining, then drop the outline"],
  ["1 2 3 4", "slides: side by side, curtain, real, generated"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["D", "light or dark"],
  ["?", "this list"],
];

/** Open the list of keys. */
export function showKeys() {
  const dialog = byId("keys-dialog");
  fill(
    dialog,
    el("h2", { id: "keys-title", text: "Keyboard" }),
    el(
      "table",
      {},
      el(
        "tbody",
        {},
        ROWS.map(([key, meaning]) => el("tr", {}, el("td", {}, el("kbd", { text: key })), el("td", { text: meaning }))),
      ),
    ),
    el(
      "div",
      { class: "row" },
      el("span", { class: "spacer" }),
      el("button", { type: "button", text: "Close", onclick: () => dialog.close() }),
    ),
  );
  dialog.showModal();
}

const isTyping = (element) =>
  element.matches?.('input:not([type="checkbox"]):not([type="radio"]):not([type="range"]), select, textarea');

/** Note whether the page is used by keys or by pointer: a slide shows its focus and its centre to keys only. */
export function watchInput() {
  const note = (kind) => () => {
    document.body.dataset.input = kind;
  };
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Shift" && event.key !== "Control") note("keys")();
    },
    true,
  );
  document.addEventListener("pointerdown", note("pointer"), true);
}

/** `actions`: {key: function}; "ctrl+z" and "ctrl+shift+z" too. Keys that a field or an open dialog needs stay with it. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (byId("keys-dialog").open || event.altKey) return;
    const held = event.ctrlKey || event.metaKey;
    const key = `${held ? "ctrl+" : ""}${held && event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
    const action = actions[key];
    const typing = isTyping(event.target) && (!held || event.target.type === "text"); // text fields undo their own text
    if (!action || (typing && key !== "escape")) return;
    if (action(event) !== false) event.preventDefault();
  });
}

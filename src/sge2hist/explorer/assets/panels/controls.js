// Groups of controls that work by keyboard: tabs, and buttons of which one is chosen.

import { byId, el, fill } from "../dom.js";

const STEP = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** Move the focus among `items` by arrow keys; only the chosen one is a tab stop. */
function rove(items, event, choose) {
  const step = STEP[event.key] ?? 0,
    at = items.indexOf(document.activeElement);
  if (at < 0 || (!step && event.key !== "Home" && event.key !== "End")) return;
  event.preventDefault();
  const to =
    event.key === "Home" ? 0 : event.key === "End" ? items.length - 1 : (at + step + items.length) % items.length;
  items[to].focus();
  choose(to);
}

/** Fill a `radiogroup` with buttons; `choices` = {key: label}. Returns a function that shows the chosen key. */
export function segments(box, choices, choose) {
  const keys = Object.keys(choices);
  const buttons = keys.map((key) =>
    el("button", {
      type: "button",
      role: "radio",
      "aria-checked": "false",
      "data-key": key,
      onclick: () => choose(key),
      text: choices[key],
    }),
  );
  fill(box, buttons);
  box.addEventListener("keydown", (event) => rove(buttons, event, (i) => choose(keys[i])));
  return (chosen) =>
    buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(keys[i] === chosen));
      button.tabIndex = keys[i] === chosen ? 0 : -1;
    });
}

/** Tabs for panels `tab-KEY` that are on the page. Returns a function that shows one of them. */
export function tabs(box, labels) {
  const keys = Object.keys(labels);
  const buttons = keys.map((key) =>
    el("button", {
      type: "button",
      role: "tab",
      id: `tab-${key}-label`,
      "aria-controls": `tab-${key}`,
      text: labels[key],
      onclick: () => show(key),
    }),
  );
  fill(box, buttons);
  box.addEventListener("keydown", (event) => rove(buttons, event, (i) => show(keys[i])));
  function show(chosen) {
    keys.forEach((key, i) => {
      buttons[i].setAttribute("aria-selected", String(key === chosen));
      buttons[i].tabIndex = key === chosen ? 0 : -1;
      byId(`tab-${key}`).hidden = key !== chosen;
    });
  }
  show(keys[0]);
  return { show, label: (key) => byId(`tab-${key}-label`) };
}

/** A label and its control, in one line. */
export function field(label, control) {
  if (!control.id) control.id = `field-${(fields += 1)}`;
  return el("div", { class: "field" }, el("label", { for: control.id, text: label }), control);
}
let fields = 0;

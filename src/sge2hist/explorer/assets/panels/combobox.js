// A text field that offers matches from the server while one types (ARIA combobox with a listbox).

import { debounced, el, fill } from "../dom.js";

let made = 0;

/** `search(text, signal)` returns [{value, label, note}]; `pick(option)` is called once one is chosen. */
export function combobox({ label, placeholder, search, pick, keep = false }) {
  const id = `combo-${(made += 1)}`;
  const list = el("ul", { id, role: "listbox", "aria-label": label, hidden: true });
  const input = el("input", {
    type: "text",
    role: "combobox",
    "aria-label": label,
    "aria-expanded": "false",
    "aria-controls": id,
    "aria-autocomplete": "list",
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
  });
  const box = el("div", { class: "combo" }, input, list);
  let options = [],
    active = -1,
    running = null;

  /** Hide the matches; those that are still on their way do not open the list again. */
  function close() {
    lookSoon.cancel();
    running?.abort();
    running = null;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  function mark(number) {
    active = number;
    [...list.children].forEach((row, i) => row.setAttribute("aria-selected", String(i === number)));
    const row = list.children[number];
    if (row?.id) input.setAttribute("aria-activedescendant", row.id);
    row?.scrollIntoView({ block: "nearest" });
  }

  function choose(option) {
    close();
    input.value = keep ? option.label : "";
    pick(option);
  }

  function show() {
    const rows = options.map((option, i) =>
      el(
        "li",
        {
          role: "option",
          id: `${id}-${i}`,
          "aria-selected": "false",
          onpointerdown: (event) => {
            event.preventDefault();
            choose(option);
          },
        },
        el("span", { text: option.label }),
        option.note ? el("span", { class: "soft", text: option.note }) : null,
      ),
    );
    fill(
      list,
      rows.length
        ? rows
        : el("li", {
            class: "nothing",
            role: "option",
            "aria-disabled": "true",
            "aria-selected": "false",
            text: "no match",
          }),
    );
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (options.length) mark(0);
  }

  async function look() {
    running?.abort();
    running = new AbortController();
    const mine = running,
      text = input.value.trim();
    try {
      const found = await search(text, mine.signal);
      if (mine.signal.aborted || document.activeElement !== input) return;
      running = null;
      options = found;
      list.dataset.of = text; // what was typed since has other matches
      show();
    } catch (error) {
      if (error.name !== "AbortError") close();
    }
  }

  const lookSoon = debounced(look, 120);
  input.addEventListener("input", lookSoon);
  input.addEventListener("focus", () => {
    if (keep) input.select();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await look();
      else if (options.length) mark((active + (event.key === "ArrowDown" ? 1 : options.length - 1)) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      lookSoon.cancel();
      const text = input.value.trim();
      if (list.hidden || list.dataset.of !== text) {
        await look();
        if (!list.hidden && options[0]?.label.toLowerCase() === text.toLowerCase()) choose(options[0]);
      } else if (options[active]) choose(options[active]);
    } else if (event.key === "Escape" && (!list.hidden || running || lookSoon.waits)) {
      event.stopPropagation();
      close();
    }
  });
  return { box, input };
}

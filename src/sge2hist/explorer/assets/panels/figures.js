// Pictures with captions that keep their place while a newer picture is made.

import { byId, el, fill } from "../dom.js";

/** A picture of the page: `show({src, caption, pending, blank})`. */
export class Figure {
  /** `enlarge` is called when it is pressed. */
  constructor(name, enlarge = null) {
    this.name = name;
    this.image = el("img", { alt: name, hidden: true });
    this.blank = el("div", { class: "blank" });
    this.caption = el("figcaption", { text: name });
    this.button = enlarge
      ? el(
          "button",
          { type: "button", class: "picture-button", "aria-label": `${name}, large`, onclick: enlarge },
          this.image,
        )
      : this.image;
    this.box = el("figure", {}, this.button, this.blank, this.caption);
  }

  show({ src = null, caption = this.name, pending = false, blank = "" }) {
    this.image.hidden = this.button.hidden = !src;
    this.blank.hidden = Boolean(src);
    if (src && this.image.getAttribute("src") !== src) this.image.src = src;
    if (!src) this.image.removeAttribute("src");
    this.blank.textContent = blank;
    this.caption.textContent = caption;
    this.image.alt = caption;
    this.box.dataset.pending = pending ? "yes" : "no";
  }
}

/** A small picture with a caption; a button if it does something. */
export function thumbnail(src, caption, press = null, label = caption) {
  const image = el("img", { src, alt: press ? "" : label, loading: "lazy" });
  const shown = press
    ? el("button", { type: "button", "aria-label": label, title: label, onclick: press }, image)
    : image;
  return el("figure", {}, shown, el("figcaption", { text: caption }));
}

/** Show pictures [{caption, src, aspect}] in a dialog; with `open` false only if it is open. */
export function showLarge(pictures, open) {
  const dialog = byId("large-dialog");
  if (!open && !dialog.open) return;
  fill(
    dialog,
    el(
      "div",
      { class: "pictures", style: { "--aspect": pictures[0]?.aspect ?? 1 } },
      pictures.map(({ caption, src }) =>
        el(
          "figure",
          {},
          src ? el("img", { src, alt: caption }) : el("div", { class: "blank" }),
          el("figcaption", { text: caption }),
        ),
      ),
    ),
    el(
      "div",
      { class: "row" },
      el("span", { class: "spacer" }),
      el("button", { type: "button", text: "Close", autofocus: true, onclick: () => dialog.close() }),
    ),
  );
  if (!dialog.open) dialog.showModal();
}

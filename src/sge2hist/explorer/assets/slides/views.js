// The two panes, linked: always the same place and zoom; beside each other, under a curtain, or one alone.

import { SlidePane } from "./pane.js";

export const MODES = { split: "Side by side", curtain: "Curtain", real: "Real", generated: "Generated" };
const SAME = 1e-9;

export class Views {
  /** `paint(pane, context)` paints the marks of a pane; `moved()` is called after each change of place. */
  constructor(parent, frame, slides, { paint, moved, pointer }) {
    this.parent = parent;
    this.frame = frame;
    this.paint = paint;
    this.moved = moved;
    this.panes = slides.map((slide) => new SlidePane(parent, frame, slide));
    [this.real, this.generated] = this.panes;
    this.hand = this.real; // the pane that was touched last; it leads when several move at once
    this.mode = "split";
    this.curtain = 0.5;
    for (const pane of this.panes) {
      for (const name of ["pointerdown", "wheel", "focusin"]) {
        pane.box.addEventListener(
          name,
          () => {
            this.hand = pane;
          },
          { passive: true },
        );
      }
      pane.box.addEventListener("pointermove", (event) => {
        const box = pane.box.getBoundingClientRect(),
          x = event.clientX - box.left,
          y = event.clientY - box.top;
        for (const other of this.panes) {
          other.cross.hidden = other === pane || this.mode === "curtain";
          other.cross.style.translate = `${x}px ${y}px`;
        }
        if (pane.isOpen) pointer(pane, pane.umOf(x, y));
      });
      pane.box.addEventListener("pointerleave", () => {
        for (const other of this.panes) other.cross.hidden = true;
        pointer(pane, null);
      });
    }
    this.#makeCurtain();
    new ResizeObserver(() => this.repaint()).observe(parent);
    requestAnimationFrame(() => this.#frame());
  }

  #makeCurtain() {
    this.handle = document.createElement("div");
    Object.assign(this.handle, { className: "curtain", tabIndex: 0 });
    for (const [name, value] of Object.entries({
      role: "slider",
      "aria-label": "Curtain between the real and the generated slide",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    }))
      this.handle.setAttribute(name, value);
    this.parent.append(this.handle);
    this.handle.addEventListener("pointerdown", (event) => {
      this.handle.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.handle.addEventListener("pointermove", (event) => {
      if (!this.handle.hasPointerCapture(event.pointerId)) return;
      const box = this.parent.getBoundingClientRect();
      this.setCurtain((event.clientX - box.left) / box.width);
    });
    this.handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.setCurtain(this.curtain + step);
    });
  }

  setCurtain(share) {
    this.curtain = Math.min(1, Math.max(0, share));
    this.parent.style.setProperty("--curtain", `${100 * this.curtain}%`);
    this.handle.setAttribute("aria-valuenow", String(Math.round(100 * this.curtain)));
    this.handle.setAttribute("aria-valuetext", `${Math.round(100 * this.curtain)} % real`);
  }

  setMode(mode) {
    this.mode = mode;
    this.parent.dataset.mode = mode;
    this.real.box.hidden = mode === "generated";
    this.generated.box.hidden = mode === "real";
    for (const pane of this.panes) if (pane.box.hidden) pane.place = null;
    this.handle.hidden = mode !== "curtain";
    this.setCurtain(this.curtain);
    if (this.hand.box.hidden) this.hand = this.shown[0];
    this.repaint();
  }

  get shown() {
    return this.panes.filter((pane) => !pane.box.hidden);
  }

  get lead() {
    return this.hand.box.hidden ? this.shown[0] : this.hand;
  }

  repaint() {
    for (const pane of this.panes) pane.dirty = true;
  }

  #frame() {
    const open = this.shown.filter((pane) => pane.isOpen);
    const moved = open.filter(
      (pane) => !pane.place || pane.placeOf().some((value, i) => Math.abs(value - pane.place[i]) > SAME),
    );
    if (moved.length) {
      const known = moved.filter((pane) => pane.place); // a pane shown again has no place: it follows
      const leader = known.includes(this.hand) ? this.hand : (known[0] ?? open.find((pane) => pane.place) ?? moved[0]);
      const place = leader.placeOf();
      for (const pane of open) {
        if (pane !== leader) pane.jumpTo(place);
        pane.place = pane.placeOf();
        pane.dirty = true;
        pane.updateScale();
      }
      this.moved();
    }
    for (const pane of open) {
      if (!pane.dirty || !pane.place) continue;
      pane.dirty = false;
      const context = pane.clearedContext();
      if (context) this.paint(pane, context);
    }
    requestAnimationFrame(() => this.#frame());
  }
}

// The tools above the slides, and what a click, a drag or Enter does with each.

import { byId, el, fill } from "../dom.js";
import { OutlineTool } from "./outline_tool.js";
import { segments } from "../panels/controls.js";

const TOOLS = { choose: "Choose", lasso: "Lasso", polygon: "Polygon", add: "Add cell", move: "Move cell" };
const HINTS = {
  choose: "Click a cell.",
  lasso: "Press and drag round an area.",
  polygon: "Click the corners; double click or Enter on the first one closes.",
  add: "Click where a cell is to be.",
  move: "Drag the chosen cell, or click its new place.",
};
const REACH_PX = 14; // a press this near to the chosen cell takes hold of it

export class Tools {
  /** `actions`: choose(pane, xy_um), outline(ring_um), add(type, xy_um), move(xy_um), view(). */
  constructor(store, views, info, actions) {
    Object.assign(this, { store, views, actions });
    this.outline = new OutlineTool(
      (ring) => {
        actions.outline(ring);
        store.set({ tool: "choose" });
      },
      () => views.repaint(),
    );
    this.ghost_um = null; // where the cell that is dragged would lie
    this.isCentre = false;
    const tools = el("div", { class: "segments", role: "radiogroup", "aria-label": "Tool" });
    this.showTool = segments(tools, TOOLS, (key) => store.set({ tool: key }));
    this.addType = el(
      "select",
      { "aria-label": "Type of the added cell" },
      info.model.types.map((name) => el("option", { value: name, text: name })),
    );
    this.addType.hidden = true;
    this.hint = byId("hint");
    this.laid = el(
      "select",
      { "aria-label": "Picture laid onto the generated slide", onchange: () => store.set({ laid: this.laid.value }) },
      Object.entries({
        after: "Inset: after",
        before: "Inset: before",
        difference: "Inset: difference",
        none: "No inset",
      }).map(([value, text]) => el("option", { value, text })),
    );
    fill(
      byId("tools"),
      tools,
      this.addType,
      el("button", {
        type: "button",
        id: "generate-view",
        text: "Generate view",
        title: "Generate the present view in full",
        onclick: actions.view,
      }),
      this.laid,
      el("button", {
        type: "button",
        id: "home",
        text: "Whole",
        title: "Show the whole section",
        onclick: actions.home,
      }),
    );
    store.on(["tool"], () => this.#show());
    for (const pane of views.panes) this.#attach(pane);
    this.#show();
  }

  get tool() {
    return this.store.get("tool");
  }

  #show() {
    if (this.outline.isBusy && this.tool !== "polygon") this.outline.cancel();
    this.showTool(this.tool);
    this.addType.hidden = this.tool !== "add";
    this.hint.textContent = this.tool === "move" && !this.store.get("cell") ? "Choose a cell first." : HINTS[this.tool];
    byId("panes").dataset.tool = this.tool;
  }

  /** What a click at a place, or Enter at the centre, does. */
  act(pane, xy_um) {
    if (this.tool === "choose") this.actions.choose(pane, xy_um);
    else if (this.tool === "polygon" || this.tool === "lasso") {
      if (this.tool === "lasso") this.store.set({ tool: "polygon" }); // a lasso by keyboard is a polygon
      this.outline.addCorner(pane, xy_um);
    } else if (this.tool === "add") this.actions.add(this.addType.value, xy_um);
    else this.actions.move(xy_um);
  }

  /** The pointer moved over a pane. */
  moveTo(pane, xy_um) {
    if (xy_um && this.tool === "polygon" && this.outline.isBusy) this.outline.moveTo(pane, xy_um);
  }

  /** Stop outlining; false if there was nothing to stop. */
  cancel() {
    if (!this.outline.isBusy && this.tool === "choose") return false;
    this.outline.cancel();
    this.store.set({ tool: "choose" });
    return true;
  }

  #attach(pane) {
    const at = (event) => pane.umOf(event.position.x, event.position.y);
    pane.viewer.addHandler("canvas-click", (event) => {
      event.preventDefaultAction = true;
      if (event.quick && this.tool !== "lasso") this.act(pane, at(event));
    });
    pane.viewer.addHandler("canvas-double-click", (event) => {
      event.preventDefaultAction = true;
      if (this.tool === "polygon") this.outline.finish();
    });
    pane.viewer.addHandler("canvas-press", (event) => {
      if (this.tool === "lasso") this.outline.startLasso(at(event));
      const cell = this.store.get("cell");
      if (this.tool === "move" && cell && event.position.distanceTo(pane.screenOf([cell.x, cell.y])) < REACH_PX)
        this.ghost_um = at(event);
    });
    pane.viewer.addHandler("canvas-drag", (event) => {
      if (!this.outline.isLasso && !this.ghost_um) return;
      event.preventDefaultAction = true;
      if (this.outline.isLasso) this.outline.moveTo(pane, at(event));
      else this.ghost_um = at(event);
      this.views.repaint();
    });
    pane.viewer.addHandler("canvas-drag-end", (event) => {
      if (!this.outline.isLasso && !this.ghost_um) return;
      event.preventDefaultAction = true;
      if (this.outline.isLasso) this.outline.finish();
      else this.actions.move(this.ghost_um);
      this.ghost_um = null;
    });
    pane.viewer.addHandler("canvas-release", () => {
      if (this.outline.isLasso && this.outline.corners_um.length < 2) this.outline.cancel(); // a press without a drag
      this.views.repaint();
    });
    pane.viewer.addHandler("canvas-key", (event) => {
      if (event.originalEvent.key !== "Enter") return;
      event.preventDefaultAction = true;
      event.originalEvent.preventDefault();
      this.act(pane, pane.frame.toUm(pane.viewer.viewport.getCenter(true)));
    });
  }
}

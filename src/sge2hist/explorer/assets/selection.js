// What is chosen: a cell, the cells that a change acts on (the scope), and what the pictures show (the target).

import { boundsOf } from "./slides/outline_tool.js";
import { short } from "./dom.js";
import { wasAborted } from "./api.js";
import { whoAdded } from "./edit_list.js";

const AREA_MARGIN_UM = 24; // of the picture of an area
const CLOSE_UP = 4; // the view of a chosen cell is so many patches wide

export class Selection {
  /** `views` shows places; `actions`: showTab(key), fail(error). */
  constructor(store, session, info, views, actions) {
    Object.assign(this, { store, session, info, views, actions });
    this.whole = [0, 0, info.data.width_um, info.data.height_um];
    this.goThere = false;
    store.on(["state", "cellId", "genes"], () => this.#fetchCell());
    store.on(["cell"], () => this.#updateTarget());
    store.on(["scopeKind", "cellId", "outline", "viewRect", "scopeType"], () => this.#updateScope());
  }

  // --- a cell --------------------------------------------------------------------------------------------------------
  /** Choose a cell; `goThere` moves the view to it. */
  choose(id, goThere) {
    const { store } = this;
    this.goThere = goThere;
    if (id === store.get("cellId")) this.#goTo(store.get("cell"));
    else store.set({ cellId: id, similar: null, genes: [], doseTarget: null });
    store.set({ scopeKind: "cell" });
    this.setPictureOf("cell");
  }

  #goTo(cell) {
    if (!this.goThere || !cell) return;
    const side = CLOSE_UP * this.info.model.patch_um;
    this.views.lead.show([cell.x - side / 2, cell.y - side / 2, side, side]);
    this.goThere = false;
  }

  async #fetchCell() {
    const { store } = this,
      id = store.get("cellId"),
      state = store.get("state");
    this.request?.abort();
    if (!id || !state) return;
    if (/^added_/.test(id) && !whoAdded(state, id)) {
      store.set({ cellId: null, cell: null }); // the edit that added it is gone
      return;
    }
    const mine = (this.request = new AbortController());
    try {
      const edited = state.edits.map((edit) => edit.action.gene).filter(Boolean);
      const genes = [...new Set([...store.get("genes"), ...edited])].join();
      const cell = await this.session.get("cell", { id, genes: genes || undefined }, mine.signal);
      if (mine.signal.aborted) return;
      store.set({ cell });
      this.#goTo(cell);
    } catch (error) {
      if (wasAborted(error)) return;
      this.actions.fail(error);
      if (store.get("cell")?.id !== id) store.set({ cellId: null, cell: null });
    }
  }

  /** Add a slider for a gene. */
  addGene(symbol) {
    const genes = this.store.get("genes");
    if (!genes.includes(symbol)) this.store.set({ genes: [...genes, symbol] });
    this.actions.showTab("change");
  }

  // --- scope ---------------------------------------------------------------------------------------------------------
  setScope(kind) {
    const { store } = this,
      values = { scopeKind: kind };
    if (kind === "type") {
      values.viewRect = this.viewRect();
      const cell = store.get("cell"),
        used = this.info.types.filter((type) => type.n > 0);
      values.scopeType = store.get("scopeType") ?? (cell?.type >= 0 ? this.info.types[cell.type].name : used[0]?.name);
    }
    if (kind !== store.get("scopeKind")) values.genes = [];
    store.set(values);
    if (kind === "type" || kind === "outline") this.setPictureOf("area");
    else if (store.get("cellId")) this.setPictureOf("cell");
  }

  setScopeType(name) {
    this.store.set({ scopeType: name || null });
  }

  setOutline(ring) {
    const outline = ring.map((corner) => corner.map((um) => +um.toFixed(1)));
    this.store.set({ outline, scopeKind: "outline", scopeType: null, genes: [] });
    this.setPictureOf("area");
    this.actions.showTab("change");
  }

  /** The scope of an edit of the list becomes the one that is changed. */
  select({ scope }) {
    const { store } = this;
    if (!scope || scope.cells) return;
    if (scope.cell) this.choose(scope.cell, true);
    else if (scope.everywhere) store.set({ scopeKind: "everywhere", scopeType: scope.type ?? null });
    else {
      const values = scope.polygon_um
        ? { outline: scope.polygon_um, scopeKind: "outline" }
        : { viewRect: scope.rectangle_um, scopeKind: "type" };
      store.set({ ...values, scopeType: scope.type ?? null });
      this.setPictureOf("area");
      this.views.lead.show(widened(scope.polygon_um ? boundsOf(scope.polygon_um) : scope.rectangle_um));
    }
    this.actions.showTab("change");
  }

  #updateScope() {
    const { store } = this,
      id = store.get("cellId"),
      outline = store.get("outline");
    const type = store.get("scopeType") ? { type: store.get("scopeType") } : {};
    const scopes = {
      cell: id ? { cell: id } : null,
      type: { rectangle_um: store.get("viewRect"), ...type },
      outline: outline ? { polygon_um: outline, ...type } : null,
      everywhere: { everywhere: true, ...type },
    };
    const scope = scopes[store.get("scopeKind")];
    if (JSON.stringify(scope) !== JSON.stringify(store.get("scope"))) store.set({ scope });
    this.#updateTarget();
  }

  // --- target --------------------------------------------------------------------------------------------------------
  /** Pictures of the chosen "cell", of the "area" of the scope, or of the present "view". */
  setPictureOf(key) {
    if (key === "view") this.viewTarget = this.viewRect();
    this.store.set({ pictureOf: key });
    this.#updateTarget();
  }

  #updateTarget() {
    const { store } = this,
      key = store.get("pictureOf"),
      limit = this.info.limits.region_um;
    let target = key === "cell" ? this.#cellTarget() : null;
    if (key !== "cell") {
      const rect = key === "view" ? this.viewTarget : this.#areaRect(),
        side = rect ? Math.max(rect[2], rect[3]) : 0;
      if (side > limit) {
        this.actions.fail({
          message: `The ${key} is ${short(side)} µm wide; at most ${limit} µm are generated at once.`,
          repair: "Zoom in, or outline a smaller area. Edits of the area act all the same.",
        });
      } else if (rect) target = { region_um: rect };
    }
    if (JSON.stringify(target) !== JSON.stringify(store.get("target"))) store.set({ target });
  }

  /** The patch of the chosen cell; of one that was added by hand the same square of the slide. */
  #cellTarget() {
    const id = this.store.get("cellId"),
      cell = this.store.get("cell"),
      side = this.info.model.patch_um;
    if (!id || !/^added_/.test(id)) return id ? { cell: id } : null;
    return cell?.id === id ? { region_um: this.#clipped([cell.x - side / 2, cell.y - side / 2, side, side]) } : null;
  }

  /** The visible part of the section. */
  viewRect() {
    return this.#clipped(this.views.lead.visibleUm());
  }

  #areaRect() {
    const kind = this.store.get("scopeKind"),
      outline = this.store.get("outline");
    if (kind === "type") return this.store.get("viewRect");
    if (kind !== "outline" || !outline) return null;
    const [x, y, width, height] = boundsOf(outline),
      margin = AREA_MARGIN_UM;
    return this.#clipped([x - margin, y - margin, width + 2 * margin, height + 2 * margin]);
  }

  #clipped([x, y, width, height]) {
    const left = Math.max(0, x),
      top = Math.max(0, y);
    return [left, top, Math.min(this.whole[2], x + width) - left, Math.min(this.whole[3], y + height) - top].map(
      (um) => Math.floor(um * 10) / 10,
    );
  }
}

/** A rectangle half as wide again. */
const widened = ([x, y, width, height]) => [x - width / 4, y - height / 4, width * 1.5, height * 1.5];

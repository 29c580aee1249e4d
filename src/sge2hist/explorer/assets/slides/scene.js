// The two slides and all that lies over them: cells, marks, areas, and the pictures that were generated.

import { CellData } from "./cell_data.js";
import { Frame } from "./pane.js";
import { Views } from "./views.js";
import { cellColours, frame, paintAreas, paintCells, paintChosen, paintOutline } from "./marks.js";
import { byId } from "../dom.js";
import { getJson, tileUrl } from "../api.js";
import { sayCells } from "../chrome.js";
import { scaleEnds } from "../panels/cells.js";

const REACH_PX = 16; // a click this far from a cell still chooses it
const REACH_UM = 50; // the same where cells are thinned or hidden

export class Scene {
  /** `actions`: moved(), fail(error). */
  constructor(store, session, info, actions) {
    Object.assign(this, { store, session, info, actions });
    const { width_um, height_um } = info.data;
    this.whole = [0, 0, width_um, height_um];
    this.colours = [];
    this.tools = null; // made later: they stand on the views
    this.cellData = new CellData(session, info, {
      changed: () => this.#newCells(),
      fail: (error) => {
        actions.fail(error);
        if (error.code === "unusable") store.set({ colour: "type" }); // a gene that the data does not have
      },
    });
    const slides = ["real", "generated"].map((key) => this.#slide(key));
    const bounds = new Frame({ x_um: 0, y_um: 0, width_um, height_um });
    this.views = new Views(byId("panes"), bounds, slides, {
      paint: (pane, context) => this.#paint(pane, context),
      moved: () => this.#moved(),
      pointer: (pane, at) => this.#pointAt(pane, at),
    });
    if (!slides[1].source) {
      const { empty } = this.views.generated;
      empty.textContent = "No generated slide was given. Choose a cell or an area: its picture appears here.";
      empty.hidden = false;
    }
    this.#wire();
  }

  #slide(key) {
    const layer = this.info.layers.find((one) => one.key === key);
    const stains = (layer ?? this.info.layers[0])?.stains ?? [];
    if (!layer)
      return { title: key === "real" ? "Real" : "Generated", note: "", stains, source: null, rect_um: this.whole };
    const source = {
      width: layer.width,
      height: layer.height,
      tileSize: layer.tile,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: layer.levels - 1,
      getTileUrl: (level, x, y) => tileUrl(layer, level, x, y),
    };
    const rect_um = [layer.x_um, layer.y_um, layer.width_um, layer.height_um];
    return { title: layer.title, note: layer.note, stains, source, rect_um };
  }

  #wire() {
    const { store } = this,
      repaint = () => this.views.repaint();
    store.on(["mode"], () => this.views.setMode(store.get("mode")));
    store.on(["colour", "marks", "state"], () => {
      this.#wantCells();
      repaint();
    });
    store.on(["low", "high"], () => this.#colourCells());
    store.on(["hidden", "strong", "cell", "similar", "scope", "result"], repaint);
    store.on(["bright"], () => this.views.panes.forEach((pane) => pane.setSlideOpacity(store.get("bright"))));
    store.on(["result", "laid"], () => this.#lay());
  }

  /** Call `ready` once both panes are open and show the whole section. */
  start(ready) {
    this.views.setMode(this.store.get("mode"));
    const whenOpen = () => {
      if (!this.views.panes.every((pane) => pane.isOpen)) {
        requestAnimationFrame(whenOpen);
        return;
      }
      this.views.real.show(this.whole, true);
      ready();
      this.isReady = true;
      this.#moved();
    };
    whenOpen();
  }

  // --- cells ---------------------------------------------------------------------------------------------------------
  #wantCells() {
    const { store, views } = this,
      state = store.get("state");
    if (!views.lead.isOpen || !state) return;
    this.cellData.want(views.lead.visibleUm(), store.get("colour"), store.get("marks"), state.revision);
  }

  #newCells() {
    sayCells(this.cellData.cells);
    this.store.set({ scale: this.cellData.cells.scale ?? null });
    this.#colourCells();
  }

  #colourCells() {
    const { cells, colour } = this.cellData,
      scale = this.store.get("scale");
    if (!cells) return;
    const ends = scale && scaleEnds(scale, this.store.get("low"), this.store.get("high"));
    this.colours = cellColours(cells, ends ? colour : "type", this.info.types, ends);
    this.views.repaint();
  }

  /** The id of the cell at a place, null if there is none: of those that are shown, or of all where they are thinned. */
  async cellAt(pane, at) {
    const { cells } = this.cellData,
      hidden = this.store.get("hidden");
    const reach_um = REACH_PX * pane.umPerScreenPx() + 0.75 * this.info.data.cell_spacing_um;
    if (cells && !cells.thinned && this.store.get("marks") !== "none") {
      const i = this.cellData.nearest(at, reach_um, (k) => !hidden.has(cells.type[k]));
      return i < 0 ? null : cells.id[i];
    }
    const found = await getJson("nearest", { x: at[0], y: at[1] });
    return found.distance_um <= Math.max(reach_um, REACH_UM) ? found.id : null;
  }

  // --- generated pictures --------------------------------------------------------------------------------------------
  #lay() {
    const result = this.store.get("result"),
      laid = this.store.get("laid"),
      pane = this.views.generated;
    const src = result && laid !== "none" ? result[laid] : null,
      rect = result && this.#rectOf(result);
    if (src && rect) {
      pane.lay("result", src, rect);
      pane.empty.hidden = true;
    } else if (!result?.pending || laid === "none") pane.lay("result", null);
  }

  #rectOf(result) {
    if (result.x_um !== undefined) return [result.x_um, result.y_um, result.width_um, result.height_um];
    if (result.target.region_um) return result.target.region_um;
    const cell = this.store.get("cell"),
      side = this.info.model.patch_um;
    return cell?.id === result.target.cell ? [cell.x - side / 2, cell.y - side / 2, side, side] : null;
  }

  // --- painting ------------------------------------------------------------------------------------------------------
  #moved() {
    if (!this.isReady) return;
    this.#wantCells();
    this.actions.moved();
  }

  #paint(pane, context) {
    const { store, tools, cellData } = this,
      cell = store.get("cell"),
      result = store.get("result");
    if (cellData.cells && this.colours.length === cellData.cells.id.length) {
      context.globalAlpha = store.get("strong");
      paintCells(context, pane, cellData.cells, this.colours, {
        marks: store.get("marks"),
        hidden: store.get("hidden"),
        spacing_um: this.info.data.cell_spacing_um,
      });
      context.globalAlpha = 1;
    }
    paintAreas(context, pane, store.get("state")?.edits ?? [], store.get("scope"));
    paintChosen(context, pane, { cell, neighbours: cell?.neighbours, similar: store.get("similar") });
    const rect = result && this.#rectOf(result);
    if (rect) frame(context, pane, rect);
    if (!tools) return;
    paintOutline(context, pane, tools.outline);
    const ghost = tools.ghost_um;
    if (ghost) paintChosen(context, pane, { cell: { x: ghost[0], y: ghost[1] } });
  }

  #pointAt(pane, at) {
    this.tools?.moveTo(pane, at);
    byId("pointer").textContent = at ? `x ${Math.round(at[0])}, y ${Math.round(at[1])} µm` : "";
  }
}

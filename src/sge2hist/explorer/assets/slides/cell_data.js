// The cells in view, fetched a little wider than the view so that small moves need no request.

import { wasAborted } from "../api.js";
import { debounced } from "../dom.js";

const MARGIN = 0.25; // of the view, on each side
const OUTLINES_UM = 600; // outlines are fetched for views narrower than this

export class CellData {
  constructor(session, info, { changed, fail }) {
    Object.assign(this, { session, info, changed, fail });
    this.cells = null;
    this.rect = null;
    this.asked = "";
    this.running = null;
    this.lookSoon = debounced((...values) => this.#fetch(...values), 90);
  }

  /** Make sure that the cells of a rectangle are here, in a colour; `marks` is "points", "outlines" or "none". */
  want(rect_um, colour, marks, revision) {
    const outlines = marks === "outlines" && this.info.data.outlines && rect_um[2] < OUTLINES_UM;
    const key = `${colour}|${outlines}|${revision}`;
    const enough = this.rect && contains(this.rect, this.#clipped(rect_um));
    const coarse = this.cells?.thinned && rect_um[2] < 0.6 * this.askedWidth; // thinned cells, and the view is now much smaller
    if (marks === "none" || (key === this.asked && enough && !coarse)) return;
    this.lookSoon(this.#widened(rect_um), rect_um[2], colour, outlines, key);
  }

  async #fetch(rect, viewWidth, colour, outlines, key) {
    this.running?.abort();
    const mine = (this.running = new AbortController());
    const [x, y, width, height] = rect;
    try {
      const cells = await this.session.get(
        "cells",
        {
          x,
          y,
          width,
          height,
          limit: this.info.limits.cells,
          colour: colour === "type" ? undefined : colour,
          outlines: outlines ? 1 : undefined,
        },
        mine.signal,
      );
      if (mine.signal.aborted) return;
      Object.assign(this, { cells, rect, colour, asked: key, askedWidth: viewWidth });
      this.changed();
      if (cells.pending) this.#fetch(rect, viewWidth, colour, outlines, key); // scores that the server has yet to compute
    } catch (error) {
      if (!wasAborted(error)) this.fail(error);
    }
  }

  #clipped([x, y, width, height]) {
    const right = Math.min(x + width, this.info.data.width_um),
      bottom = Math.min(y + height, this.info.data.height_um);
    const left = Math.max(0, x),
      top = Math.max(0, y);
    return [left, top, Math.max(0, right - left), Math.max(0, bottom - top)];
  }

  #widened([x, y, width, height]) {
    const wide = this.#clipped([
      x - MARGIN * width,
      y - MARGIN * height,
      width * (1 + 2 * MARGIN),
      height * (1 + 2 * MARGIN),
    ]);
    return wide[2] > 0 && wide[3] > 0 ? wide : [0, 0, this.info.data.width_um, this.info.data.height_um];
  }

  /** Index of the cell nearest to a place among those for which `keep(index)` holds, -1 if none is within `reach_um`. */
  nearest([x, y], reach_um, keep) {
    const cells = this.cells;
    let best = -1,
      least = reach_um * reach_um;
    for (let i = 0; i < (cells?.id.length ?? 0); i += 1) {
      const d = (cells.x[i] - x) ** 2 + (cells.y[i] - y) ** 2;
      if (d <= least && keep(i)) [best, least] = [i, d];
    }
    return best;
  }
}

const contains = (a, b) =>
  a[0] <= b[0] + 1e-6 && a[1] <= b[1] + 1e-6 && a[0] + a[2] >= b[0] + b[2] - 1e-6 && a[1] + a[3] >= b[1] + b[3] - 1e-6;

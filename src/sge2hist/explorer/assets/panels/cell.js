// The tab of the chosen cell: type, pictures, genes, neighbours, and cells like it.

import { collect } from "../render.js";
import { realUrl } from "../api.js";
import { byId, el, fill, short } from "../dom.js";
import { Figure, thumbnail } from "./figures.js";

const N_SAMPLES = 4,
  N_SIMILAR = 8,
  N_PROBABLE = 4,
  N_GENES = 12,
  N_NEAREST = 6,
  SIMILAR_WAIT_MS = 1500;

export class CellPanel {
  /** `choose(id, goThere)` chooses another cell; `addGene(symbol)` adds a slider; `fail(error)` shows an error. */
  constructor(store, session, info, { choose, addGene, fail }) {
    Object.assign(this, { store, session, info, choose, addGene, fail });
    this.box = byId("tab-cell");
    this.figures = { real: new Figure("Real"), after: new Figure("Generated") };
    this.samples = el("div", { class: "pictures", style: { "--columns": 4 } });
    this.similar = el("div", {});
    this.stop = () => {};
    store.on(["cell"], () => this.#showCell());
    store.on(["result", "state"], () => this.#showPictures());
    this.#showCell();
  }

  #type(number) {
    return this.info.types[number] ?? { name: "unknown", colour: "#b8bcc2" };
  }

  #showCell() {
    const cell = this.store.get("cell");
    if (cell?.id !== this.shownId) {
      this.stop();
      fill(this.samples);
      fill(this.similar);
    }
    this.shownId = cell?.id;
    if (!cell) {
      fill(
        this.box,
        el("h2", { text: "No cell chosen" }),
        el("p", {
          text: "Click a cell on either slide, or move with the arrow keys and press Enter, to see its type, its genes and its pictures.",
        }),
        el("p", { class: "soft", text: "Outline an area with the lasso or the polygon to change all cells in it." }),
      );
      return;
    }
    const type = this.#type(cell.type),
      mark = cell.removed ? "removed" : cell.added ? "added" : cell.edited ? "edited" : "";
    fill(
      this.box,
      el(
        "div",
        { class: "title-line" },
        el("span", { class: "swatch", style: { "--colour": type.colour } }),
        el("span", { text: type.name }),
        mark ? el("span", { class: "mark", text: mark }) : null,
      ),
      el(
        "p",
        { class: "soft" },
        `${cell.id} · x ${short(cell.x)}, y ${short(cell.y)} µm · ${short(cell.n_counts)} counts of ${short(cell.n_genes)} genes`,
      ),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", text: "Go there", onclick: () => this.choose(cell.id, true) }),
        el("button", {
          type: "button",
          text: "More samples",
          disabled: cell.added,
          onclick: () => this.#moreSamples(),
        }),
        el("button", {
          type: "button",
          text: "Cells like this",
          disabled: cell.added,
          onclick: () => this.#findSimilar(),
        }),
      ),
      el("div", { class: "pictures" }, this.figures.real.box, this.figures.after.box),
      this.samples,
      this.similar,
      this.#probabilities(cell),
      novelty(cell),
      this.#genes(cell),
      this.#neighbours(cell),
    );
    this.#showPictures();
  }

  #showPictures() {
    const cell = this.store.get("cell"),
      result = this.store.get("result");
    if (!cell) return;
    const side = this.info.model.patch_um,
      state = this.store.get("state");
    this.figures.real.show(
      cell.added
        ? { caption: "Real", blank: "added by hand" }
        : { src: realUrl([cell.x, cell.y], side), caption: `Real, ${short(side)} µm` },
    );
    const own = result && this.store.get("pictureOf") === "cell" ? result : null;
    this.figures.after.show({
      src: own?.after,
      pending: own?.pending,
      blank: own?.pending ? "generating" : result && !own ? "the pictures show an area" : "",
      caption: `Generated, seed ${state?.settings.seed ?? 0}${own?.stage === "preview" ? ", preview" : ""}`,
    });
  }

  #probabilities(cell) {
    const rows = cell.probabilities.slice(0, N_PROBABLE).filter((one, i) => i === 0 || one.p >= 0.005);
    return el(
      "div",
      {},
      el("h2", { text: "Type, by the model" }),
      el(
        "table",
        {},
        el(
          "tbody",
          {},
          rows.map((one) => {
            const colour = this.info.types.find((type) => type.name === one.type)?.colour;
            return el(
              "tr",
              {},
              el("td", { text: one.type }),
              el("td", { style: { width: "38%" } }, meter(one.p, colour)),
              el("td", { class: "number", text: `${(100 * one.p).toFixed(0)} %` }),
            );
          }),
        ),
      ),
    );
  }

  #genes(cell) {
    return el(
      "div",
      {},
      el("h2", { text: "Top genes" }),
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { text: "gene" }),
            el("th", { class: "number", text: "counts" }),
            el("th", { class: "number", text: "of all" }),
            el("th", { class: "number", text: "× mean" }),
            el("td"),
          ),
        ),
        el(
          "tbody",
          {},
          cell.genes.slice(0, N_GENES).map((gene) =>
            el(
              "tr",
              {},
              el(
                "td",
                {},
                el("button", {
                  type: "button",
                  class: "plain",
                  text: gene.symbol,
                  title: `Colour cells by ${gene.symbol}`,
                  onclick: () => this.store.set({ colour: `gene:${gene.symbol}` }),
                }),
              ),
              el("td", {
                class: "number",
                text:
                  gene.counts === gene.original
                    ? short(gene.counts)
                    : `${short(gene.original)} → ${short(gene.counts)}`,
              }),
              el("td", { class: "number", text: `${(100 * gene.share).toFixed(1)} %` }),
              el("td", { class: "number", text: short(gene.fold) }),
              el(
                "td",
                { class: "number" },
                el("button", {
                  type: "button",
                  class: "plain",
                  text: "change",
                  "aria-label": `Change ${gene.symbol}`,
                  onclick: () => this.addGene(gene.symbol),
                }),
              ),
            ),
          ),
        ),
      ),
    );
  }

  #neighbours(cell) {
    if (!cell.neighbours.length)
      return el("div", {}, el("h2", { text: "Neighbours" }), el("p", { class: "soft", text: "none within reach" }));
    const count = new Map();
    for (const one of cell.neighbours) count.set(one.type, (count.get(one.type) ?? 0) + 1);
    const rows = [...count].sort((a, b) => b[1] - a[1]);
    return el(
      "div",
      {},
      el("h2", { text: `Nearest ${cell.neighbours.length} cells` }),
      el(
        "table",
        {},
        el(
          "tbody",
          {},
          rows.map(([number, n]) =>
            el(
              "tr",
              {},
              el("td", { text: this.#type(number).name }),
              el("td", { style: { width: "38%" } }, meter(n / cell.neighbours.length, this.#type(number).colour)),
              el("td", { class: "number", text: n }),
            ),
          ),
        ),
      ),
      el(
        "div",
        { class: "row" },
        cell.neighbours.slice(0, N_NEAREST).map((one) =>
          el(
            "button",
            {
              type: "button",
              class: "plain",
              title: `${this.#type(one.type).name}, ${one.id}`,
              "aria-label": `Choose neighbour ${one.id}`,
              onclick: () => this.choose(one.id, false),
            },
            el("span", { class: "swatch", style: { "--colour": this.#type(one.type).colour } }),
            ` ${short(one.distance_um)} µm`,
          ),
        ),
      ),
    );
  }

  #moreSamples() {
    this.stop();
    fill(this.samples, el("p", { class: "soft", text: "generating samples" }));
    this.stop = collect(
      this.session,
      "samples",
      { cell: this.shownId, n: N_SAMPLES, slot: "samples" },
      {
        show: (pictures) =>
          fill(
            this.samples,
            pictures.map((one) => thumbnail(one.after, `sample ${one.sample}`)),
          ),
        fail: (error) => {
          fill(this.samples);
          this.fail(error);
        },
      },
    );
  }

  async #findSimilar() {
    const id = this.shownId;
    try {
      const found = await this.session.get("similar", { id, n: N_SIMILAR });
      if (id !== this.shownId) return;
      if (found.progress !== undefined && !found.cells.length) {
        fill(
          this.similar,
          el("h2", { text: "Cells like this" }),
          el("p", { class: "soft", text: `reading the cells: ${Math.round(100 * found.progress)} %` }),
        );
        setTimeout(() => {
          if (id === this.shownId) this.#findSimilar();
        }, SIMILAR_WAIT_MS);
        return;
      }
      this.store.set({ similar: found.cells });
      const side = this.info.model.patch_um;
      fill(
        this.similar,
        el("h2", { text: "Cells like this, in the latent space" }),
        el(
          "div",
          { class: "pictures", style: { "--columns": 4 } },
          found.cells.map((one) =>
            thumbnail(
              realUrl([one.x, one.y], side, 96),
              this.#type(one.type).name,
              () => this.choose(one.id, true),
              `Go to ${one.id}, ${this.#type(one.type).name}`,
            ),
          ),
        ),
      );
    } catch (error) {
      this.fail(error);
    }
  }
}

/** A bar of a share, 0 to 1. */
export const meter = (share, colour) =>
  el(
    "div",
    { class: "meter" },
    el("span", { style: { "--share": `${100 * share}%`, ...(colour ? { "--colour": colour } : {}) } }),
  );

/** What the model knows of such counts, before and after the edits. */
export function novelty(cell) {
  if (!cell.novelty) return null; // added by hand: a type, no counts
  const { fit, latent, novel, original } = cell.novelty,
    share = (value) => `${(100 * value).toFixed(value < 0.01 ? 1 : 0)} %`;
  const changed = original && (Math.abs(original.fit - fit) > 1e-9 || Math.abs(original.latent - latent) > 1e-9);
  const line = `Counts more usual than those of ${share(fit)} of the training cells, latent than ${share(latent)}`;
  const before = changed ? `; before the edits ${share(original.fit)} and ${share(original.latent)}` : "";
  const level = novel ? "unknown" : Math.min(fit, latent) < 0.01 ? "doubtful" : "known";
  const verdict = {
    unknown: "The model has not seen such counts: its picture is a guess. ",
    doubtful: "Unusual counts. ",
    known: "",
  }[level];
  return el("div", { class: "notice", "data-level": level }, `${verdict}${line}${before}.`);
}

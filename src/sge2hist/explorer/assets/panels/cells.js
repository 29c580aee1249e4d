// The left panel: how cells are coloured and marked, and the legend that filters them.

import { byId, el, fill, short } from "../dom.js";
import { combobox } from "./combobox.js";
import { field, segments } from "./controls.js";
import { gradientOf } from "../slides/colours.js";
import { getJson } from "../api.js";

const LABELS = { type: "Type", gene: "Gene", novelty: "Novelty", posterior: "Spread", uncertainty: "Seeds" };
const HELP = {
  posterior:
    "How uncertain the latents are that the model reads from the counts of a cell: mean standard deviation. Near 1 the counts say nothing.",
  novelty: "How unusual a cell is for the model: 0 ordinary, above 0.999 outside of what it was trained on.",
  uncertainty:
    "Spread of the generated slide over seeds, grey levels: where it is high, expression leaves the picture open.",
};

/** Search of genes by symbol or id, for a combobox. */
export async function searchGenes(text, signal) {
  const { genes } = await getJson("genes", { q: text || undefined, limit: 20 }, signal);
  return genes.map((gene) => ({
    value: gene.symbol,
    label: gene.symbol,
    gene,
    note: gene.in_model ? `${short(gene.mean)} per cell` : "not in the model",
  }));
}

export class CellsPanel {
  constructor(store, info) {
    this.store = store;
    this.info = info;
    const box = byId("cells");
    const by = el("div", { class: "segments", role: "radiogroup", "aria-label": "Colour cells by" });
    const keys = info.colours.filter((key) => key in LABELS);
    this.showColour = segments(by, Object.fromEntries(keys.map((key) => [key, LABELS[key]])), (key) =>
      this.#choose(key),
    );
    this.gene = combobox({
      label: "Gene that colours the cells",
      placeholder: "Gene symbol",
      search: searchGenes,
      keep: true,
      pick: (option) => this.store.set({ colour: `gene:${option.value}` }),
    });
    this.geneRow = el("div", { class: "row" }, el("div", { class: "grow" }, this.gene.box));
    this.help = el("p", { class: "soft" });
    this.scaleBox = el("div", {});
    this.legend = el("ul", { class: "legend" });
    this.legendTitle = el("h2", { text: "Types" });
    fill(
      box,
      el("h2", { text: "Colour cells by" }),
      by,
      this.geneRow,
      this.help,
      this.scaleBox,
      el("h2", { text: "Display" }),
      this.#marks(),
      el(
        "div",
        { class: "row" },
        this.legendTitle,
        el("span", { class: "spacer" }),
        el("button", {
          type: "button",
          class: "plain",
          text: "all",
          "aria-label": "Show all types",
          onclick: () => this.store.set({ hidden: new Set() }),
        }),
        el("button", {
          type: "button",
          class: "plain",
          text: "none",
          "aria-label": "Hide all types",
          onclick: () => this.store.set({ hidden: new Set([-1, ...info.types.map((_, i) => i)]) }),
        }),
      ),
      this.legend,
    );
    this.#fillLegend();
    store.on(["colour"], () => this.#showColour());
    store.on(["scale", "low", "high"], () => this.#showScale());
    store.on(["hidden"], () => this.#showHidden());
    this.#showColour();
    this.#showHidden();
  }

  #choose(key) {
    if (key !== "gene") {
      this.store.set({ colour: key });
      return;
    }
    const symbol = this.lastGene;
    if (symbol) this.store.set({ colour: `gene:${symbol}` });
    else {
      this.showColour("gene");
      this.geneRow.hidden = false;
      this.gene.input.focus();
    }
  }

  #marks() {
    const shape = el("select", { id: "marks", title: "Outlines are painted when zoomed in", onchange: () => this.store.set({ marks: shape.value }) });
    const choices = {
      points: "points",
      ...(this.info.data.outlines ? { outlines: "outlines" } : {}),
      none: "none",
    };
    for (const [value, text] of Object.entries(choices)) shape.append(el("option", { value, text }));
    const bright = el("input", {
      id: "bright",
      type: "range",
      min: 0,
      max: 100,
      step: 5,
      value: 100,
      oninput: () => this.store.set({ bright: bright.value / 100 }),
    });
    const strong = el("input", {
      id: "strong",
      type: "range",
      min: 10,
      max: 100,
      step: 5,
      value: 100 * this.store.get("strong"),
      oninput: () => this.store.set({ strong: strong.value / 100 }),
    });
    this.store.on(["marks"], () => {
      shape.value = this.store.get("marks");
    });
    return el("div", {}, field("Marks", shape), field("Cells", strong), field("Slide", bright));
  }

  #showColour() {
    const colour = this.store.get("colour"),
      key = colour.split(":")[0];
    this.showColour(key);
    this.geneRow.hidden = key !== "gene";
    if (key === "gene") {
      this.lastGene = colour.slice(5);
      this.gene.input.value = this.lastGene;
    }
    this.help.textContent = HELP[key] ?? "";
    this.help.hidden = !HELP[key];
    this.#showScale();
  }

  #showScale() {
    const scale = this.store.get("scale"),
      colour = this.store.get("colour");
    if (colour === "type" || !scale) {
      fill(this.scaleBox);
      return;
    }
    const table = colour.startsWith("gene:") ? "viridis" : "inferno";
    const ends = scaleEnds(scale, this.store.get("low"), this.store.get("high"));
    const choose = (name, label, choices) => {
      const select = el("select", { "aria-label": label, onchange: () => this.store.set({ [name]: select.value }) });
      for (const [value, text] of choices) select.append(el("option", { value, text }));
      select.value = this.store.get(name);
      return select;
    };
    fill(
      this.scaleBox,
      el("div", {
        class: "bar",
        role: "img",
        "aria-label": `colours from ${short(ends.low)} to ${short(ends.high)} ${scale.unit}`,
        style: { background: gradientOf(table) },
      }),
      el(
        "div",
        { class: "ends" },
        el("span", { text: short(ends.low) }),
        el("span", { text: scale.unit }),
        el("span", { text: short(ends.high) }),
      ),
      el(
        "div",
        { class: "row" },
        choose("low", "Low end of the scale", [
          ["min", "lowest"],
          ["5", "5 %"],
          ["25", "25 %"],
          ["50", "median"],
        ]),
        el("span", { class: "soft", text: "to" }),
        choose("high", "High end of the scale", [
          ["50", "median"],
          ["75", "75 %"],
          ["95", "95 %"],
          ["max", "highest"],
        ]),
      ),
    );
  }

  #fillLegend() {
    const { types } = this.info,
      known = types.reduce((sum, type) => sum + type.n, 0),
      rest = this.info.data.n_cells - known;
    const rows = types
      .map((type, number) => ({ ...type, number }))
      .filter((type) => type.n > 0)
      .sort((a, b) => b.n - a.n);
    if (rest > 0) rows.push({ name: "unknown", colour: "#b8bcc2", n: rest, number: -1 });
    this.boxes = new Map();
    fill(
      this.legend,
      rows.map((row) => {
        const box = el("input", {
          type: "checkbox",
          onchange: () => {
            const hidden = new Set(this.store.get("hidden"));
            if (box.checked) hidden.delete(row.number);
            else hidden.add(row.number);
            this.store.set({ hidden });
          },
        });
        this.boxes.set(row.number, box);
        return el(
          "li",
          {},
          el(
            "label",
            { title: row.name },
            box,
            el("span", { class: "swatch", style: { "--colour": row.colour } }),
            el("span", { class: "name", text: row.name }),
            el("span", { class: "soft", text: row.n.toLocaleString("en") }),
          ),
        );
      }),
    );
  }

  #showHidden() {
    const hidden = this.store.get("hidden");
    for (const [number, box] of this.boxes) box.checked = !hidden.has(number);
  }
}

/** The ends {low, high} of a colour scale, by quantile; the whole range where the quantiles are one. */
export function scaleEnds(scale, low, high) {
  const [q5, q25, q50, q75, q95] = scale.quantiles;
  const ends = {
    low: { min: scale.low, 5: q5, 25: q25, 50: q50 }[low],
    high: { 50: q50, 75: q75, 95: q95, max: scale.high }[high],
  };
  return ends.high > ends.low ? ends : { low: scale.low, high: scale.high };
}

// One row per gene: a slider of its dose (0 to 4 times its counts) or a number of counts.

import { el, fill, short } from "../dom.js";
import { geneEdit, genesOf } from "../edit_list.js";

export class GeneSliders {
  constructor(store, changes, info) {
    Object.assign(this, { store, changes, info });
    this.box = el("div", {});
    this.rows = new Map(); // symbol -> row
    store.on(["scope", "genes", "state", "cell"], () => this.show());
  }

  /** Symbols of the scope: those with an edit, and those that were added and not yet moved. */
  #symbols(state, scope) {
    const edited = genesOf(state, scope);
    return [...new Set([...edited, ...this.store.get("genes")])];
  }

  /** Put the focus on the slider of a gene. */
  focus(symbol) {
    this.rows.get(symbol)?.slider.focus();
  }

  show() {
    const state = this.store.get("state"),
      scope = this.store.get("scope"),
      key = JSON.stringify(scope);
    if (!state || !scope) {
      fill(this.box);
      this.rows.clear();
      return;
    }
    if (key !== this.shownScope) this.rows.clear();
    this.shownScope = key;
    const symbols = this.#symbols(state, scope);
    for (const symbol of this.rows.keys()) if (!symbols.includes(symbol)) this.rows.delete(symbol);
    for (const symbol of symbols) if (!this.rows.has(symbol)) this.rows.set(symbol, this.#row(scope, symbol));
    const boxes = symbols.map((symbol) => this.rows.get(symbol).box);
    if (boxes.length !== this.box.children.length || boxes.some((box, i) => box !== this.box.children[i]))
      fill(this.box, boxes);
    for (const symbol of symbols) this.rows.get(symbol).update(geneEdit(state, scope, symbol));
  }

  #row(scope, symbol) {
    const max = this.info.limits.dose_max;
    const slider = el("input", { type: "range", min: 0, max, step: 0.05, value: 1, "aria-label": `Dose of ${symbol}` });
    const number = el("input", {
      type: "number",
      min: 0,
      max,
      step: 0.1,
      value: 1,
      "aria-label": `Dose of ${symbol}, number`,
    });
    const unit = el(
      "select",
      { "aria-label": `Unit of ${symbol}` },
      el("option", { value: "factor", text: "× own" }),
      el("option", { value: "counts", text: "counts" }),
    );
    const counts = el("div", { class: "counts" });
    const drop = el("button", {
      type: "button",
      class: "plain",
      text: "×",
      "aria-label": `Remove ${symbol}`,
      title: "Remove",
      onclick: () => {
        this.store.set({ genes: this.store.get("genes").filter((one) => one !== symbol) });
        this.changes.removeGene(scope, symbol);
      },
    });
    let waiting = 0,
      typing = false; // while either, what the server says is older than what the row shows
    const send = async (value) => {
      if (value === "" || !Number.isFinite(Number(value))) return;
      const high = unit.value === "factor" ? max : this.info.limits.counts_max;
      waiting += 1;
      await this.changes.gene(scope, symbol, {
        gene: symbol,
        [unit.value]: Math.min(high, Math.max(0, Number(value))),
      });
      waiting -= 1;
      update(geneEdit(this.store.get("state"), scope, symbol));
    };
    const end = () => this.changes.endGene(scope, symbol);
    slider.addEventListener("input", () => {
      number.value = slider.value;
      send(slider.value);
    });
    number.addEventListener("input", () => {
      typing = true;
    });
    number.addEventListener("change", () => {
      typing = false;
      send(number.value);
      end();
    });
    slider.addEventListener("change", end);
    unit.addEventListener("change", () => {
      this.#setUnit(unit.value, slider, number);
      const known = this.#known(symbol);
      number.value = unit.value === "factor" ? 1 : known ? known.original : 0;
      slider.value = number.value;
      send(number.value);
      end();
    });
    const update = (edit) => {
      const kind = edit && !waiting ? ("counts" in edit.action ? "counts" : "factor") : unit.value;
      if (kind !== unit.value) {
        unit.value = kind;
        this.#setUnit(kind, slider, number);
      }
      if (!waiting && !typing) {
        const value = edit ? edit.action[kind] : kind === "factor" ? 1 : number.value;
        if (kind === "counts") slider.max = String(Math.max(Number(slider.max), value));
        slider.value = value;
        number.value = +Number(value).toFixed(2);
      }
      const known = this.#known(symbol);
      counts.textContent = known ? countsLine(known, unit.value) : "";
      counts.hidden = !known;
    };
    return {
      slider,
      box: el(
        "div",
        { class: "gene", "data-gene": symbol },
        el("span", { class: "symbol", text: symbol, title: symbol }),
        slider,
        number,
        unit,
        drop,
        counts,
      ),
      update,
    };
  }

  #setUnit(unit, slider, number) {
    slider.max = unit === "factor" ? this.info.limits.dose_max : 50;
    slider.step = unit === "factor" ? 0.05 : 1;
    number.max = unit === "factor" ? this.info.limits.dose_max : this.info.limits.counts_max;
    number.step = unit === "factor" ? 0.1 : 1;
  }

  /** Counts of the gene in the chosen cell, if the scope is that cell. */
  #known(symbol) {
    const scope = this.store.get("scope"),
      cell = this.store.get("cell");
    return scope?.cell && cell?.id === scope.cell ? cell.genes.find((gene) => gene.symbol === symbol) : undefined;
  }
}

function countsLine({ counts, original }, unit) {
  const line = `counts in this cell: ${short(original)}${counts === original ? "" : ` → ${short(counts)}`}`;
  return original === 0 && unit === "factor" ? `${line}. A factor changes nothing: set counts.` : line;
}

// The tab of changes: which cells, which genes, which type; the pictures before and after; the dose strip; the sampler.

import { byId, el, fill, short } from "../dom.js";
import { collect } from "../render.js";
import { combobox } from "./combobox.js";
import { editWith, genesOf } from "../edit_list.js";
import { field, segments } from "./controls.js";
import { Figure, showLarge, thumbnail } from "./figures.js";
import { GeneSliders } from "./gene_sliders.js";
import { novelty } from "./cell.js";
import { realUrl } from "../api.js";
import { searchGenes } from "./cells.js";

export const SCOPES = { cell: "Cell", type: "Type in view", outline: "Outline", everywhere: "Section" };
const PICTURES = { cell: "Cell", area: "Area", view: "View" };
const DOSES = {
  1: [0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1],
  2: [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2],
  4: [0, 0.5, 1, 1.5, 2, 2.5, 3, 4],
};

export class ChangePanel {
  /** `fail(error)` shows an error. */
  constructor(store, session, changes, info, selection, fail) {
    Object.assign(this, { store, session, changes, info, selection, fail });
    const enlarge = () => showLarge(this.#large(this.store.get("result")), true);
    this.figures = Object.fromEntries(
      ["Before", "After", "Difference"].map((name) => [name.toLowerCase(), new Figure(name, enlarge)]),
    );
    this.sliders = new GeneSliders(store, changes, info);
    this.strip = el("div", { class: "strip" });
    this.stopStrip = () => {};
    this.#build();
    store.on(["scopeKind", "scope", "cell", "state", "scopeType"], () => this.#showScope());
    store.on(["result", "pictureOf", "cell"], () => this.#showPictures());
    store.on(["scope", "genes", "state"], () => this.#showDoseGenes());
    store.on(["state"], () => this.#showSettings());
    this.#showScope();
    this.#showPictures();
    this.#showDoseGenes();
  }

  #build() {
    const scopes = el("div", { class: "segments", role: "radiogroup", "aria-label": "Cells that change" });
    this.showKind = segments(scopes, SCOPES, (key) => this.selection.setScope(key));
    this.scopeLine = el("p", { class: "soft" });
    this.scopeType = el("select", {
      "aria-label": "Type of the cells that change",
      onchange: () => this.selection.setScopeType(this.scopeType.value),
    });
    this.scopeTypeRow = field("Type", this.scopeType);
    const gene = combobox({
      label: "Add a gene",
      placeholder: "Add a gene by symbol",
      search: searchGenes,
      pick: (option) => this.addGene(option.value),
    });
    this.newType = el("select", {
      id: "new-type",
      onchange: () => this.changes.setType(this.store.get("scope"), this.newType.value || null),
    });
    this.newType.append(
      el("option", { value: "", text: "as it is" }),
      ...this.info.model.types.map((name) => el("option", { value: name, text: name })),
    );
    this.removeButton = el("button", {
      type: "button",
      text: "Remove",
      onclick: () => this.changes.removeCells(this.store.get("scope")),
    });
    const pictureOf = el("div", { class: "segments", role: "radiogroup", "aria-label": "Pictures of" });
    this.showPictureOf = segments(pictureOf, PICTURES, (key) => this.selection.setPictureOf(key));
    this.pictureNote = el("p", { class: "soft" });
    this.notice = el("div", {});
    this.lattice = this.#latticePanel();
    this.noCounts = el("p", { class: "soft", text: "A cell added by hand has a type and no counts." });
    this.geneBox = gene.box;
    this.controls = el(
      "div",
      {},
      el("h2", { text: "Genes" }),
      this.noCounts,
      gene.box,
      this.sliders.box,
      el("h2", { text: "Type and presence" }),
      field("New type", this.newType),
      el(
        "div",
        { class: "row" },
        this.removeButton,
        el("span", { class: "soft", text: "Move and add single cells with the tools above the slides." }),
      ),
      this.lattice,
    );
    this.dose = this.#dosePanel();
    fill(
      byId("tab-change"),
      el("h2", { text: "Cells that change" }),
      scopes,
      this.scopeTypeRow,
      this.scopeLine,
      el(
        "div",
        { class: "result" },
        el("div", { class: "row" }, el("span", { class: "soft", text: "Pictures of" }), pictureOf),
        el(
          "div",
          { class: "pictures" },
          Object.values(this.figures).map((figure) => figure.box),
        ),
        this.pictureNote,
      ),
      this.controls,
      this.notice,
      this.dose,
      this.#settingsPanel(),
    );
  }

  /** Add a slider for a gene and put the focus on it. */
  addGene(symbol) {
    this.selection.addGene(symbol);
    this.sliders.focus(symbol);
  }

  /** Cells of a type added all over the area. */
  #latticePanel() {
    const { types } = this.info.model;
    const type = el(
      "select",
      { "aria-label": "Type of the added cells" },
      types.map((name) => el("option", { value: name, text: name })),
    );
    const spacing = el("input", {
      type: "number",
      min: 4,
      max: 200,
      step: 1,
      value: 12,
      "aria-label": "Spacing of the added cells, µm",
    });
    const add = () => {
      const { type: ofType, ...area } = this.store.get("scope");
      if (spacing.reportValidity())
        this.changes.add({ scope: area, action: { add_type: type.value, spacing_um: Number(spacing.value) } });
    };
    return el(
      "div",
      { class: "lattice" },
      type,
      el("span", { class: "soft", text: "every" }),
      spacing,
      el("span", { class: "soft", text: "µm" }),
      el("button", { type: "button", text: "Add cells", onclick: add }),
    );
  }

  // --- which cells ---------------------------------------------------------------------------------------------------
  #showScope() {
    const kind = this.store.get("scopeKind"),
      scope = this.store.get("scope"),
      state = this.store.get("state"),
      cell = this.store.get("cell");
    this.showKind(kind);
    this.scopeTypeRow.hidden = kind === "cell";
    const types = this.info.types.filter((type) => type.n > 0).map((type) => type.name);
    const wanted = [...(kind === "type" ? [] : [["", "all types"]]), ...types.map((name) => [name, name])];
    if (JSON.stringify(wanted) !== this.typeChoices) {
      this.typeChoices = JSON.stringify(wanted);
      fill(
        this.scopeType,
        wanted.map(([value, text]) => el("option", { value, text })),
      );
    }
    this.scopeType.value = this.store.get("scopeType") ?? "";
    const needs = {
      cell: "Choose a cell on a slide.",
      outline: "Outline an area with the lasso (L) or the polygon (P).",
      type: "",
      everywhere: "",
    }[kind];
    fill(
      this.scopeLine,
      scope ? this.#describe(kind, scope, cell) : needs,
      kind === "type"
        ? el("button", {
            type: "button",
            class: "plain",
            text: "take the present view",
            onclick: () => this.selection.setScope("type"),
          })
        : null,
    );
    this.controls.hidden = !scope;
    if (!scope) return;
    const removed = (kind === "cell" && cell?.removed) || editWith(state, scope, "remove");
    this.newType.value = editWith(state, scope, "set_type")?.action.set_type ?? "";
    const isAll = kind === "everywhere" && !scope.type;
    this.newType.disabled = Boolean(removed) || isAll || (kind === "cell" && cell?.added);
    const isAdded = kind === "cell" && Boolean(cell?.added);
    this.noCounts.hidden = !isAdded;
    this.geneBox.hidden = isAdded;
    this.lattice.hidden = kind !== "outline" && kind !== "type";
    this.removeButton.disabled = Boolean(removed) || isAll;
    fill(this.notice, kind === "cell" && cell?.id === scope.cell ? novelty(cell) : null);
  }

  #describe(kind, scope, cell) {
    const cells = scope.type ? `${scope.type} cells` : "All cells";
    if (kind === "outline") return `${cells} inside the outline`;
    if (kind === "type") return `${cells} in the view as it was when chosen`;
    if (kind === "everywhere") return `${cells} of the section`;
    const type = cell?.id === scope.cell && this.info.types[cell.type];
    return `Cell ${scope.cell}${type ? `, ${type.name}` : ""}`;
  }

  // --- pictures ------------------------------------------------------------------------------------------------------
  #showPictures() {
    const result = this.store.get("result");
    this.showPictureOf(this.store.get("pictureOf"));
    const { before, after, difference } = this.figures,
      { pending, stage } = result ?? {};
    const blank = pending ? "generating" : stage === "failed" ? "not generated" : "";
    before.show({ src: result?.before, pending, blank });
    after.show({
      src: result?.after,
      pending: stage === "asked",
      blank,
      caption: stage === "preview" ? "After, preview" : "After",
    });
    difference.show({ src: result?.difference, pending, blank, caption: "Difference" });
    const total = result?.preview_s
      ? `${short(result.waited_s)} s, preview ${short(result.preview_s)} s`
      : `${short(result?.waited_s)} s`;
    this.pictureNote.textContent = !result
      ? "Choose a cell or an area on a slide."
      : stage === "full"
        ? `Mean difference ${short(result.mean_difference)} of 255 · ${total}`
        : stage === "failed"
          ? "Not generated."
          : stage === "preview"
            ? "Preview; full quality follows."
            : "Generating.";
    showLarge(this.#large(result), false);
  }

  /** The pictures for the dialog, with the real slide beside them. */
  #large(result) {
    if (!result) return [];
    const cell = this.store.get("cell"),
      [x, y, width, height] = result.target.region_um ?? [0, 0, 1, 1],
      side = this.info.model.patch_um;
    const real = result.target.region_um
      ? realUrl([x + width / 2, y + height / 2], Math.max(width, height), 1024)
      : cell?.id === result.target.cell && !cell.added
        ? realUrl([cell.x, cell.y], side, 512)
        : null;
    return [
      ["Real", real],
      ["Before", result.before],
      ["After", result.after],
      ["Difference: black 0, white 64 grey levels", result.difference],
    ].map(([caption, src]) => ({ caption, src, aspect: width / height }));
  }

  // --- dose strip ----------------------------------------------------------------------------------------------------
  #dosePanel() {
    this.doseGenes = el("select", { id: "dose-genes" });
    this.doseMax = el(
      "select",
      { id: "dose-max" },
      Object.keys(DOSES).map((x) => el("option", { value: x, text: `0 to ${x} times` })),
    );
    this.doseMax.value = "2";
    this.doseButton = el("button", { type: "button", text: "Generate 8 doses", onclick: () => this.#runStrip() });
    return el(
      "div",
      {},
      el("h2", { text: "Dose strip of the chosen cell" }),
      field("Gene", this.doseGenes),
      field("Dose", this.doseMax),
      el("div", { class: "row" }, this.doseButton),
      this.strip,
    );
  }

  #showDoseGenes() {
    const state = this.store.get("state"),
      scope = this.store.get("scope");
    const edited = state ? genesOf(state, scope) : [];
    const genes = [...new Set([...edited, ...this.store.get("genes")])],
      key = genes.join();
    const cell = this.store.get("cell");
    this.doseButton.disabled = !genes.length || !cell || cell.added;
    if (key === this.doseKey) return;
    this.doseKey = key;
    const chosen = this.doseGenes.value;
    fill(
      this.doseGenes,
      genes.length ? [] : el("option", { value: "", text: "add a gene first" }),
      genes.map((gene) => el("option", { value: gene, text: gene })),
      genes.length > 1 ? el("option", { value: "*", text: `all ${genes.length} together` }) : null,
    );
    if ([...this.doseGenes.options].some((option) => option.value === chosen)) this.doseGenes.value = chosen;
    this.genesOfDose = genes;
  }

  #runStrip() {
    this.stopStrip();
    const genes = this.doseGenes.value === "*" ? this.genesOfDose : [this.doseGenes.value],
      factors = DOSES[this.doseMax.value];
    const target = { cell: this.store.get("cell").id, dose: { genes, factors } };
    fill(this.strip, el("p", { class: "soft", style: { "grid-column": "1 / -1" }, text: "generating" }));
    this.stopStrip = collect(
      this.session,
      "dose",
      { cell: target.cell, genes, factors, slot: "dose" },
      {
        show: (pictures) =>
          fill(
            this.strip,
            pictures.map((one) =>
              thumbnail(
                one.after,
                `× ${+one.factor.toFixed(2)}${one.novelty?.novel ? " !" : ""}`,
                null,
                `${genes.join(", ")} times ${one.factor}${one.novelty?.novel ? ": counts that the model has not seen" : ""}`,
              ),
            ),
          ),
        done: () => this.store.set({ doseTarget: target }),
        fail: (error) => {
          fill(this.strip);
          this.fail(error);
        },
      },
    );
  }

  // --- sampler -------------------------------------------------------------------------------------------------------
  #settingsPanel() {
    const { limits } = this.info;
    const number = (name, label, properties) => {
      const input = el("input", { type: "number", ...properties });
      input.addEventListener("change", () => {
        if (input.value !== "" && input.checkValidity()) this.changes.settings({ [name]: Number(input.value) });
        else this.#showSettings();
      });
      this[name] = input;
      return field(label, input);
    };
    return el(
      "details",
      { open: true },
      el("summary", { text: "Noise and sampler" }),
      number("seed", "Seed", { min: 0, max: 2 ** 31 - 1, step: 1 }),
      number("guidance", "Guidance", { min: limits.guidance[0], max: limits.guidance[1], step: "any" }),
      number("n_steps", "Steps", { min: 1, max: limits.steps, step: 1 }),
      el(
        "div",
        { class: "row" },
        el("button", {
          type: "button",
          text: "Another seed",
          onclick: () => this.changes.settings({ seed: (this.store.get("state").settings.seed + 1) % 2 ** 31 }),
        }),
        el("button", {
          type: "button",
          text: "Defaults of the model",
          onclick: () =>
            this.changes.settings({
              n_steps: this.info.model.sampler.n_steps,
              guidance: this.info.model.sampler.guidance,
            }),
        }),
      ),
    );
  }

  #showSettings() {
    const { settings } = this.store.get("state");
    for (const name of ["seed", "guidance", "n_steps"])
      if (document.activeElement !== this[name]) this[name].value = settings[name];
  }
}

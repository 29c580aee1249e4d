// The tab of edits: the list, saving and loading, files, and the commands that repeat a picture.

import { byId, debounced, download, el, fill } from "../dom.js";
import { describeAction, describeScope } from "../edit_list.js";

const NAME = /^[A-Za-z0-9 _-]{1,64}$/;

export class EditsPanel {
  /** `actions`: select(edit), fail(error), say(text). */
  constructor(store, session, changes, info, actions) {
    Object.assign(this, { store, session, changes, info, actions });
    this.list = el("ol", { class: "edits" });
    this.name = el("input", {
      type: "text",
      "aria-label": "Name of the list",
      placeholder: "name of the list",
      maxlength: 64,
      onchange: () => changes.name(this.name.value.trim()),
    });
    this.command = el("pre", { class: "code", tabindex: 0, role: "group", "aria-label": "Command line" });
    this.python = el("pre", { class: "code", tabindex: 0, role: "group", "aria-label": "Python" });
    this.commandNote = el("p", { class: "soft" });
    fill(
      byId("tab-edits"),
      el("h2", { text: "Edits, in the order in which they act" }),
      this.list,
      this.#files(),
      this.#pictures(),
      this.#commands(),
    );
    this.askCommand = debounced(() => this.#fetchCommand(), 250);
    store.on(["state"], () => this.#showList());
    store.on(["state", "target"], () => this.askCommand());
    store.on(["target"], () => this.#showButtons());
    this.#showList();
    this.#showButtons();
  }

  #showList() {
    const state = this.store.get("state");
    if (!state) return;
    if (document.activeElement !== this.name) this.name.value = state.name;
    const effects = new Map(state.effects.map((one) => [one.edit, one.n_cells]));
    this.clear.disabled = !state.edits.length;
    const focused = this.list.contains(document.activeElement) ? focusOf(document.activeElement) : null;
    fill(
      this.list,
      state.edits.length
        ? state.edits.map((edit) => this.#row(edit, effects.get(edit.id)))
        : el("li", { class: "soft", text: "None yet: move a gene, or change, add or remove cells." }),
    );
    if (focused)
      this.list
        .querySelector(`[data-edit="${focused.edit}"]`)
        ?.querySelectorAll("input, button")
        [focused.number]?.focus();
  }

  #row(edit, n_cells) {
    const says = edit.name || describeAction(edit.action);
    const name = el("input", {
      type: "text",
      class: "bare",
      value: edit.name,
      placeholder: "add a name",
      maxlength: 80,
      "aria-label": `Name of the edit ${describeAction(edit.action)}`,
      onchange: () => this.changes.replace(edit.id, { name: name.value.trim() }),
    });
    const on = el("input", {
      type: "checkbox",
      "aria-label": `Use the edit ${says}`,
      checked: edit.enabled !== false,
      onchange: () => this.changes.replace(edit.id, { enabled: on.checked }),
    });
    const show = el("button", {
      type: "button",
      class: "plain",
      text: describeAction(edit.action),
      title: "Show its cells",
      onclick: () => this.actions.select(edit),
    });
    return el(
      "li",
      { "data-edit": edit.id },
      on,
      el(
        "div",
        { class: "what" },
        show,
        el("div", {
          class: "soft",
          text: `${describeScope(edit.scope)}${n_cells === undefined ? "" : ` · ${n_cells.toLocaleString("en")} ${n_cells === 1 ? "cell" : "cells"}`}`,
        }),
        name,
      ),
      el("button", {
        type: "button",
        class: "plain",
        text: "delete",
        "aria-label": `Delete the edit ${says}`,
        onclick: () => this.changes.remove(edit.id),
      }),
    );
  }

  #files() {
    this.clear = el("button", { type: "button", text: "Delete all", onclick: () => this.changes.clear() });
    const file = el("input", {
      type: "file",
      accept: ".geojson,.json,application/geo+json",
      hidden: true,
      "aria-label": "File of edits",
      onchange: async () => {
        const [chosen] = file.files;
        if (chosen) await this.changes.import(await chosen.text());
        file.value = "";
      },
    });
    this.saved = el("select", { "aria-label": "Saved lists" });
    this.savedRow = el(
      "div",
      { class: "row" },
      this.saved,
      el("button", {
        type: "button",
        text: "Load",
        onclick: () => this.saved.value && this.changes.load(this.saved.value),
      }),
    );
    const save = el("button", { type: "button", text: "Save", onclick: () => this.#save() });
    if (this.info.saving) this.#listSaved();
    this.savedRow.hidden = true;
    return el(
      "div",
      {},
      el("div", { class: "row" }, this.name, this.info.saving ? save : null),
      this.savedRow,
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", text: "Download GeoJSON", onclick: () => this.#download("export/edits") }),
        el("button", { type: "button", text: "Open a file", onclick: () => file.click() }),
        file,
        this.clear,
      ),
    );
  }

  async #save() {
    const name = this.name.value.trim();
    if (!NAME.test(name)) {
      this.actions.fail(
        Object.assign(new Error("A list is saved under a name of letters, digits, spaces, - and _."), {
          repair: "Name the list first.",
        }),
      );
      this.name.focus();
      return;
    }
    try {
      await this.session.json("save", { name });
      this.actions.say(`Saved as ${name}.`);
      await this.#listSaved();
    } catch (error) {
      this.actions.fail(error);
    }
  }

  async #listSaved() {
    try {
      const names = await this.session.savedNames();
      fill(
        this.saved,
        names.map((name) => el("option", { value: name, text: name })),
      );
      this.savedRow.hidden = !names.length;
    } catch (error) {
      this.actions.fail(error);
    }
  }

  #pictures() {
    const button = (format, text) =>
      el("button", {
        type: "button",
        text,
        onclick: () => this.#download("export/image", { target: this.store.get("target"), sample: 0, format }),
      });
    this.pictureButtons = [button("png", "PNG"), button("ome-tiff", "OME-TIFF")];
    return el(
      "div",
      {},
      el("h2", { text: "Picture after the edits" }),
      el("div", { class: "row" }, this.pictureButtons),
    );
  }

  #showButtons() {
    for (const button of this.pictureButtons) button.disabled = !this.store.get("target");
  }

  async #download(path, body = undefined) {
    try {
      const { name, blob } = await this.session.file(path, body ? { method: "POST", body } : {});
      download(name, blob);
    } catch (error) {
      this.actions.fail(error);
    }
  }

  #commands() {
    const copy = (box, what) =>
      el("button", {
        type: "button",
        class: "plain",
        text: "copy",
        "aria-label": `Copy the ${what}`,
        onclick: async () => {
          try {
            await navigator.clipboard.writeText(box.textContent);
            this.actions.say(`Copied the ${what}.`);
          } catch {
            const range = document.createRange();
            range.selectNodeContents(box);
            getSelection().removeAllRanges();
            getSelection().addRange(range);
            this.actions.say("Press Ctrl+C to copy.");
          }
        },
      });
    this.commandBox = el(
      "div",
      {},
      el("div", { class: "row" }, el("b", { text: "Command line" }), copy(this.command, "command")),
      this.command,
      el("div", { class: "row" }, el("b", { text: "Python" }), copy(this.python, "Python")),
      this.python,
    );
    this.ofDose = el("input", { type: "checkbox", id: "command-of-dose", onchange: () => this.askCommand() });
    this.ofDoseRow = el(
      "div",
      { class: "row", hidden: true },
      this.ofDose,
      el("label", { for: "command-of-dose", text: "of the dose strip" }),
    );
    this.store.on(["doseTarget"], () => {
      this.ofDoseRow.hidden = !this.store.get("doseTarget");
    });
    return el("div", {}, el("h2", { text: "Repeat it exactly" }), this.commandNote, this.ofDoseRow, this.commandBox);
  }

  async #fetchCommand() {
    const target = this.ofDose.checked ? this.store.get("doseTarget") : this.store.get("target"),
      revision = this.session.state?.revision;
    this.commandBox.hidden = !target;
    this.commandNote.textContent = target
      ? ""
      : "Choose a cell or an area: the command that makes its picture stands here.";
    if (!target) return;
    try {
      const made = await this.session.get("export/command", { target: JSON.stringify(target) });
      if (revision !== this.session.state.revision) return;
      this.command.textContent = made.command;
      this.python.textContent = made.python;
      this.commandNote.textContent = made.edits
        ? `Needs ${made.edits_file}, which Download GeoJSON saves; writes ${made.output}.`
        : `Writes ${made.output}.`;
    } catch (error) {
      this.commandBox.hidden = true;
      this.commandNote.textContent = error.message;
    }
  }
}

/** Where the focus is in the list: which edit, and which of its controls. */
function focusOf(element) {
  const row = element.closest("[data-edit]");
  return row && { edit: row.dataset.edit, number: [...row.querySelectorAll("input, button")].indexOf(element) };
}

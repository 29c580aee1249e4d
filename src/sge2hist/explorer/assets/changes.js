// Changes of the list of edits, as the controls of the page ask for them.

import { editWith, geneEdit, whoAdded } from "./edit_list.js";

const tidy = (um) => +um.toFixed(1); // 0.1 um: a list of edits stays readable

export class Changes {
  /** `fail(error)` shows an error of the server; the list is then unchanged. `done()` is called after each change. */
  constructor(session, { done, fail }) {
    Object.assign(this, { session, done, fail });
    this.waiting = new Map(); // key of a slider -> its newest value that is not yet sent
    this.dragged = new Set(); // keys of sliders whose history step is open
  }

  async #change(ask) {
    try {
      const state = await this.session.change(ask);
      this.done();
      return state;
    } catch (error) {
      this.fail(error);
      return null;
    }
  }

  add(edit) {
    return this.#change(() => ({ method: "POST", path: "edits", body: edit }));
  }

  remove(id) {
    return this.#change(() => ({ method: "DELETE", path: `edits/${id}` }));
  }

  replace(id, values) {
    return this.#change((state) => {
      const edit = state.edits.find((one) => one.id === id);
      return edit ? { method: "PUT", path: `edits/${id}`, body: { ...bare(edit), ...values } } : null;
    });
  }

  /** A slider of a gene: of many values in one drag only the newest is sent, and the history gets one step. */
  gene(scope, symbol, action) {
    const key = JSON.stringify([scope, symbol]),
      isFirst = !this.waiting.has(key);
    this.waiting.set(key, action);
    if (!isFirst) return this.session.queue; // the request that waits takes the newest value
    return this.#change((state) => {
      const newest = this.waiting.get(key),
        edit = geneEdit(state, scope, symbol),
        merge = this.dragged.has(key);
      this.waiting.delete(key);
      this.dragged.add(key);
      if (edit && JSON.stringify(edit.action) === JSON.stringify(newest)) return null;
      if (edit) return { method: "PUT", path: `edits/${edit.id}`, body: { ...bare(edit), action: newest, merge } };
      return { method: "POST", path: "edits", body: { scope, action: newest } };
    });
  }

  /** The hand has left the slider: the next move is another step of the history. */
  endGene(scope, symbol) {
    const key = JSON.stringify([scope, symbol]);
    this.session.queue.then(() => this.dragged.delete(key));
  }

  removeGene(scope, symbol) {
    return this.#change((state) => {
      const edit = geneEdit(state, scope, symbol);
      return edit ? { method: "DELETE", path: `edits/${edit.id}` } : null;
    });
  }

  /** Give the cells of a scope a type; null gives them theirs back. */
  setType(scope, type) {
    return this.#change((state) => {
      const edit = editWith(state, scope, "set_type");
      if (type === null) return edit ? { method: "DELETE", path: `edits/${edit.id}` } : null;
      const body = { scope, action: { set_type: type } };
      return edit
        ? { method: "PUT", path: `edits/${edit.id}`, body: { ...bare(edit), ...body } }
        : { method: "POST", path: "edits", body };
    });
  }

  /** Remove the cells of a scope; one that was added by hand leaves the edit that added it. */
  removeCells(scope) {
    return this.#change((state) => {
      const added = whoAdded(state, scope.cell);
      if (!added)
        return editWith(state, scope, "remove")
          ? null
          : { method: "POST", path: "edits", body: { scope, action: { remove: true } } };
      const { edit, index } = added,
        places = edit.action.at_um;
      if (!places || places.length === 1) return { method: "DELETE", path: `edits/${edit.id}` };
      const action = { ...edit.action, at_um: places.filter((_, i) => i !== index) };
      return { method: "PUT", path: `edits/${edit.id}`, body: { ...bare(edit), action } };
    });
  }

  /** Move a cell from where it is seen now to a place. */
  moveCell(cell, [x_um, y_um]) {
    return this.#change((state) => {
      const by = [tidy(x_um - cell.x), tidy(y_um - cell.y)],
        added = whoAdded(state, cell.id);
      if (added?.edit.action.at_um) {
        const at_um = added.edit.action.at_um.map((place, i) => (i === added.index ? [tidy(x_um), tidy(y_um)] : place));
        return {
          method: "PUT",
          path: `edits/${added.edit.id}`,
          body: { ...bare(added.edit), action: { ...added.edit.action, at_um } },
        };
      }
      const scope = { cell: cell.id },
        edit = editWith(state, scope, "move_um");
      if (!edit) return { method: "POST", path: "edits", body: { scope, action: { move_um: by } } };
      const move_um = edit.action.move_um.map((um, i) => tidy(um + by[i]));
      return { method: "PUT", path: `edits/${edit.id}`, body: { ...bare(edit), action: { move_um } } };
    });
  }

  /** Add a cell of a type at a place; cells of one type that are added in a row are one edit. */
  addCell(type, [x_um, y_um]) {
    return this.#change((state) => {
      const last = state.edits.at(-1),
        place = [tidy(x_um), tidy(y_um)];
      if (last?.action.add_type === type && last.action.at_um && last.enabled !== false) {
        const action = { ...last.action, at_um: [...last.action.at_um, place] };
        return { method: "PUT", path: `edits/${last.id}`, body: { ...bare(last), action } };
      }
      return { method: "POST", path: "edits", body: { action: { add_type: type, at_um: [place] } } };
    });
  }

  settings(values) {
    return this.#change(() => ({ method: "PUT", path: "settings", body: values }));
  }

  name(name) {
    return this.#change(() => ({ method: "PUT", path: "name", body: { name } }));
  }

  undo() {
    return this.#change((state) => (state.can_undo ? { method: "POST", path: "undo" } : null));
  }

  redo() {
    return this.#change((state) => (state.can_redo ? { method: "POST", path: "redo" } : null));
  }

  clear() {
    return this.#change((state) => (state.edits.length ? { method: "PUT", path: "edits", body: { edits: [] } } : null));
  }

  load(name) {
    return this.#change(() => ({ method: "POST", path: "load", body: { name } }));
  }

  /** Edits from the text of a GeoJSON file. */
  import(text) {
    return this.#change(() => ({ method: "POST", path: "import", body: text }));
  }
}

/** An edit as the server takes it: without what it adds itself. */
function bare({ id, n_cells, ...edit }) {
  return edit;
}

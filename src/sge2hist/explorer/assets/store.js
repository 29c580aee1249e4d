// What the page shows at the moment: one object of named values, and listeners of each name.

export class Store {
  #values;
  #listeners = new Map();

  constructor(values) {
    this.#values = { ...values };
  }

  get(name) {
    return this.#values[name];
  }

  /** Set several values, then call each listener of a changed one once. */
  set(values) {
    const changed = Object.keys(values).filter((name) => this.#values[name] !== values[name]);
    Object.assign(this.#values, values);
    const called = new Set();
    for (const name of changed) {
      for (const listener of this.#listeners.get(name) ?? []) {
        if (called.has(listener)) continue;
        called.add(listener);
        listener();
      }
    }
  }

  /** Call `listener` after any of the values changed. */
  on(names, listener) {
    for (const name of names) {
      if (!this.#listeners.has(name)) this.#listeners.set(name, []);
      this.#listeners.get(name).push(listener);
    }
  }
}

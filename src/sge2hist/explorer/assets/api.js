// The server, as docs/developing/explorer-protocol.md describes it. All addresses are relative to the page, which holds the token.

const SESSION_KEY = "sge2hist-explorer-session";

/** An error of the server: its line for people, and how to repair it. */
export class ServerError extends Error {
  constructor({ code, message, repair }) {
    super(message);
    this.code = code;
    this.repair = repair ?? "";
  }
}

/** Whether a request ended because the page no longer wanted its answer. */
export const wasAborted = (error) => error.name === "AbortError";

async function send(path, { method = "GET", body, signal } = {}) {
  const options = { method, signal, headers: {}, cache: "no-store" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = typeof body === "string" ? body : JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch (error) {
    if (wasAborted(error)) throw error;
    throw new ServerError({
      code: "unreachable",
      message: "The explorer's server does not answer.",
      repair: "Start sge2hist explore again and open its new address.",
    });
  }
  if (answer.ok) return answer;
  let found = null;
  try {
    found = (await answer.json()).error;
  } catch {
    /* no JSON: the status is all there is */
  }
  throw new ServerError(found ?? { code: "failed", message: `The server answered ${answer.status}.` });
}

const asQuery = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== null)).toString();

export const getJson = async (path, values = {}, signal = undefined) =>
  (await send(`${path}?${asQuery(values)}`, { signal })).json();
export const tileUrl = (layer, level, column, row) =>
  `api/tiles/${layer.key}/${level}/${column}_${row}.${layer.suffix}`;
export const realUrl = ([x, y], side, px) => `api/real?${asQuery({ x: x.toFixed(2), y: y.toFixed(2), side, px })}`;

/** The objects of a stream of JSON lines, as they arrive. An object of stage "error" is thrown. */
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value ?? "";
      const parts = rest.split("\n");
      rest = done ? "" : parts.pop();
      for (const part of parts) {
        if (!part.trim()) continue;
        const object = JSON.parse(part);
        if (object.stage === "error") throw new ServerError(object.error);
        yield object;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The edits, settings and history of this tab. A session that the server ended is made again with the edits that the page holds. */
export class Session {
  /** `changed(state)` is called with every new state. */
  constructor(changed) {
    this.changed = changed;
    this.state = null;
    this.queue = Promise.resolve();
  }

  async open() {
    const stored = remembered();
    let old = null;
    if (stored) old = await getJson(`sessions/${stored}`).catch(() => null);
    if (old && (await holdAlone(stored))) {
      this.#take(old);
      return;
    }
    await this.#make(old); // a copied tab goes on with a copy of the edits
  }

  async #make(from) {
    let state = await (await send("sessions", { method: "POST", body: {} })).json();
    await holdAlone(state.session);
    if (from?.edits.length) {
      const body = { edits: from.edits.map(withoutCount), name: from.name };
      state = await (await send(`sessions/${state.session}/edits`, { method: "PUT", body })).json();
    }
    if (from)
      state = await (await send(`sessions/${state.session}/settings`, { method: "PUT", body: from.settings })).json();
    remember(state.session);
    this.#take(state);
  }

  #take(state) {
    this.state = state;
    this.changed(state);
  }

  #path(path) {
    return path ? `sessions/${this.state.session}/${path}` : `sessions/${this.state.session}`;
  }

  async #sendAlive(path, options) {
    try {
      return await send(this.#path(path), options);
    } catch (error) {
      if (error.code !== "session_gone") throw error;
      await this.#make(this.state);
      return send(this.#path(path), options);
    }
  }

  async get(path, values = {}, signal = undefined) {
    const query = asQuery(values);
    return (await this.#sendAlive(query ? `${path}?${query}` : path, { signal })).json();
  }

  /** Change the edits. `ask(state)` returns {method, path, body}, or null for nothing; it is called when all earlier changes are done. */
  change(ask) {
    const next = this.queue.then(async () => {
      const wanted = ask(this.state);
      if (!wanted) return this.state;
      const state = await (
        await this.#sendAlive(wanted.path, { method: wanted.method, body: wanted.body ?? {} })
      ).json();
      this.#take(state);
      return state;
    });
    this.queue = next.catch(() => {});
    return next;
  }

  async refresh() {
    this.#take(await this.get(""));
  }

  /** Send something that does not change the edits; the answer is JSON. */
  async json(path, body) {
    return (await this.#sendAlive(path, { method: "POST", body })).json();
  }

  async savedNames() {
    return (await getJson("saved")).names;
  }

  /** Objects of a progressive answer. */
  async *stream(path, body, signal) {
    yield* lines(await this.#sendAlive(path, { method: "POST", body, signal }));
  }

  /** A file of the server: {name, blob}. */
  async file(path, options = {}) {
    const answer = await this.#sendAlive(path, options);
    const name =
      /filename="?([^";]+)"?/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? path.split("/").at(-1);
    return { name, blob: await answer.blob() };
  }
}

// A page inside a notebook may have no storage: it then has a new session each time it is opened.
function remembered() {
  try {
    return sessionStorage.getItem(SESSION_KEY);
  } catch {
    return null;
  }
}

function remember(session) {
  try {
    sessionStorage.setItem(SESSION_KEY, session);
  } catch {
    // see above
  }
}

const withoutCount = ({ n_cells, id, ...edit }) => edit;

/** Whether no other tab holds this session; this one then holds it until it closes. */
function holdAlone(session) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((answer) => {
    navigator.locks.request(`sge2hist-${session}`, { ifAvailable: true }, (lock) => {
      answer(lock !== null);
      return lock === null ? undefined : new Promise(() => {});
    });
  });
}

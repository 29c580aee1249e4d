// Pictures of the target: a preview first, then full quality. A newer request aborts the older one, here and on the server.

import { wasAborted } from "./api.js";

export class Renderer {
  /** `show(result)` is called after every stage; `fail(error)` if the server cannot do it. */
  constructor(session, { show, fail }) {
    this.session = session;
    this.show = show;
    this.fail = fail;
    this.running = null;
    this.result = null;
  }

  /** {target, pending, after, before, difference, ...}; pictures of an older request of the same target stay until newer ones come. */
  async render(target, sample = 0) {
    this.cancel();
    const mine = (this.running = new AbortController());
    const asked = performance.now();
    const old = JSON.stringify(this.result?.target) === JSON.stringify(target) ? this.result : null;
    this.result = { ...old, target, pending: true, stage: "asked" };
    this.show(this.result);
    try {
      for await (const part of this.session.stream(
        "render",
        { target, sample, slot: "main", preview: true, before: true },
        mine.signal,
      )) {
        if (mine.signal.aborted) return;
        if (part.stage === "cancelled")
          throw Object.assign(new Error("The picture was given up."), { code: "cancelled" });
        const waited_s = (performance.now() - asked) / 1000;
        this.result = { ...this.result, ...part, pending: part.stage !== "full", waited_s };
        if (part.stage === "preview") this.result.preview_s = waited_s;
        this.show(this.result);
      }
    } catch (error) {
      if (wasAborted(error) || mine.signal.aborted) return;
      this.result = { ...this.result, pending: false, stage: "failed" };
      this.show(this.result);
      this.fail(error);
    } finally {
      if (this.running === mine) this.running = null;
    }
  }

  cancel() {
    this.running?.abort();
    this.running = null;
  }

  clear() {
    this.cancel();
    this.result = null;
    this.show(null);
  }
}

/** Collect the pictures of a stream into `show(pictures)`; the returned function stops it. */
export function collect(session, path, body, { show, fail, done }) {
  const stop = new AbortController(),
    pictures = [];
  (async () => {
    try {
      for await (const part of session.stream(path, body, stop.signal)) {
        if (stop.signal.aborted) return;
        if (part.stage === "image") {
          pictures.push(part);
          show(pictures);
        }
      }
      done?.();
    } catch (error) {
      if (!wasAborted(error) && !stop.signal.aborted) fail(error);
    }
  })();
  return () => stop.abort();
}

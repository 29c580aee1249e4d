// The view in the address: a link to it opens the same place, cell and colours.

import { debounced } from "./dom.js";

const NAMES = ["at", "mode", "colour", "cell"];

/** {at: [x, y, width, height] um, mode, colour, cell} of an address; what is missing or malformed is not in it. */
export function readLink(hash) {
  const read = new URLSearchParams(hash.replace(/^#/, "")),
    link = {};
  for (const name of NAMES) if (read.get(name)) link[name] = read.get(name);
  if (link.at) {
    const at = link.at.split(",").map(Number);
    if (at.length === 4 && at.every(Number.isFinite) && at[2] > 0 && at[3] > 0) link.at = at;
    else delete link.at;
  }
  return link;
}

/** Keep the address at what `current()` returns; call the result after each change. */
export function linkWriter(current) {
  return debounced(() => {
    const link = current(),
      written = new URLSearchParams();
    for (const name of NAMES) {
      const value = name === "at" ? link.at?.map((um) => um.toFixed(1)).join(",") : link[name];
      if (value) written.set(name, value);
    }
    history.replaceState(null, "", `#${written.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
  }, 250);
}

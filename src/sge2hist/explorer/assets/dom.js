// Elements of the page, made without innerHTML: a name from a dataset is text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. `properties`: on* are listeners, `class`, `text`, `style` (an object), booleans; the rest are attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  setProperties(made, properties);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Make an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function setProperties(made, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name === "style") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
    else made.setAttribute(name, value === true ? "" : value);
  }
}

/** The element of the page with an id. */
export const byId = (id) => document.getElementById(id);

/** Replace all children of an element. */
export function fill(parent, ...children) {
  parent.replaceChildren(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
}

/** Run `action` once, `wait_ms` after the last call. */
export function debounced(action, wait_ms) {
  let timer = 0;
  const call = (...values) => {
    clearTimeout(timer);
    call.waits = true;
    timer = setTimeout(() => {
      call.waits = false;
      action(...values);
    }, wait_ms);
  };
  call.waits = false;
  call.cancel = () => {
    clearTimeout(timer);
    call.waits = false;
  };
  return call;
}

/** A number for a table: no more digits than anybody reads. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return size >= 10 ? value.toFixed(1) : size >= 0.01 || size === 0 ? value.toFixed(2) : value.toExponential(1);
}

/** Give the browser a file to save. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

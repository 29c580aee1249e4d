// What frames the page: messages, the line that says what is going on, light or dark, the drawer of narrow screens.

import { wasAborted } from "./api.js";
import { byId, el, fill, short } from "./dom.js";

export function hideMessage() {
  byId("message").hidden = true;
}

/** Show an error of the server, or one of the page: {message, repair}. */
export function showError(error) {
  if (wasAborted(error)) return;
  fill(
    byId("message"),
    el("span", {}, error.message, error.repair ? `\n${error.repair}` : ""),
    el("button", { type: "button", class: "plain", text: "Close", onclick: hideMessage }),
  );
  byId("message").hidden = false;
}

/** The line at the foot of the page. */
export function say(text, isBusy = false) {
  byId("busy").textContent = text;
  byId("busy").dataset.busy = isBusy ? "yes" : "no";
}

/** Say how far the pictures are. */
export function sayProgress(result) {
  if (!result) say("");
  else if (result.stage === "failed") say("Not generated");
  else if (!result.pending) say(`Full quality after ${short(result.waited_s)} s`);
  else if (result.stage === "preview") say(`Preview after ${short(result.preview_s)} s; full quality follows`, true);
  else say("Generating", true);
}

/** Say how many cells are shown. */
export function sayCells(cells) {
  const number = (n) => n.toLocaleString("en");
  byId("cells-shown").textContent = cells.thinned
    ? `${number(cells.id.length)} of ${number(cells.n)} cells shown`
    : `${number(cells.n)} cells`;
}

/** Name the model and the data, and warn if the model does not know such cells. */
export function showSubject({ model, data, applicability }) {
  byId("subject").textContent = `${model.name} · ${data.name}${data.toy || model.toy ? " · toy" : ""}`;
  byId("subject").title =
    `Slide ${data.slide}, ${data.n_cells.toLocaleString("en")} cells, ${model.n_genes.toLocaleString("en")} genes`;
  document.title = `${data.name}: SGE2Hist explorer`;
  if (!applicability || applicability.verdict === "known") return;
  Object.assign(byId("notice"), { hidden: false, textContent: applicability.headline });
  byId("notice").dataset.level = applicability.verdict;
}

function showTheme() {
  byId("theme").textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
}

export function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("sge2hist-theme", theme);
  } catch {
    // without storage it holds for this page only
  }
  showTheme();
}

const drawerIsOpen = () => document.body.dataset.cells === "open";

function toggleDrawer() {
  document.body.dataset.cells = drawerIsOpen() ? "shut" : "open";
  byId("cells-toggle").setAttribute("aria-expanded", String(drawerIsOpen()));
}

/** Shut the drawer; false if it was shut. */
export function shutDrawer() {
  if (!drawerIsOpen()) return false;
  toggleDrawer();
  byId("cells-toggle").focus();
  return true;
}

/** Make the buttons of the header work. */
export function startChrome() {
  showTheme();
  byId("theme").addEventListener("click", switchTheme);
  byId("cells-toggle").addEventListener("click", toggleDrawer);
  const header = document.querySelector("header"),
    root = document.documentElement;
  new ResizeObserver(() => root.style.setProperty("--header", `${header.offsetHeight}px`)).observe(header);
}

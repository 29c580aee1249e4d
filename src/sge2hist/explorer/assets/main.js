// The page: opens the session, makes the panels, and wires what one of them chooses to all that show it.

import { CellPanel } from "./panels/cell.js";
import { CellsPanel } from "./panels/cells.js";
import { ChangePanel } from "./panels/change.js";
import { Changes } from "./changes.js";
import { EditsPanel } from "./panels/edits.js";
import { MODES } from "./slides/views.js";
import { Renderer } from "./render.js";
import { Scene } from "./slides/scene.js";
import { Selection } from "./selection.js";
import { Session, getJson } from "./api.js";
import { Store } from "./store.js";
import { Tools } from "./slides/tools.js";
import { byId, debounced } from "./dom.js";
import {
  hideMessage,
  say,
  sayProgress,
  showError,
  showSubject,
  shutDrawer,
  startChrome,
  switchTheme,
} from "./chrome.js";
import { linkWriter, readLink } from "./deep_link.js";
import { listen, showKeys, watchInput } from "./keys.js";
import { segments, tabs } from "./panels/controls.js";

const RENDER_WAIT_MS = 15; // several changes of one action ask for one picture

const store = new Store({
  state: null, // of the session: edits, settings, revision
  cellId: null, // the chosen cell, and below what the server says of it
  cell: null,
  similar: null, // cells like it
  scopeKind: "cell", // cells that a change acts on: "cell", "type", "outline", "everywhere"
  scopeType: null,
  outline: null, // corners, um
  viewRect: null, // um
  scope: null, // as the protocol writes it
  genes: [], // sliders that have no edit yet
  pictureOf: "cell", // "cell", "area", "view"
  target: null, // as the protocol writes it
  result: null, // pictures of the target
  doseTarget: null, // of the last dose strip
  colour: "type",
  scale: null,
  low: "5", // ends of the colour scale, quantiles
  high: "95",
  marks: "points",
  hidden: new Set(), // numbers of types
  strong: 0.8, // opacity of cells and of the slide
  bright: 1,
  mode: "split",
  tool: "choose",
  laid: "after", // the picture that lies on the generated slide
});

class Explorer {
  constructor(info, session) {
    this.info = info;
    this.session = session;
    this.link = readLink(location.hash);
    this.writeLink = linkWriter(() => this.#currentLink());
    this.scene = new Scene(store, session, info, { moved: this.writeLink, fail: showError });
    this.renderer = new Renderer(session, { show: (result) => store.set({ result }), fail: showError });
    this.changes = new Changes(session, {
      done: hideMessage,
      fail: (error) => {
        showError(error);
        store.set({ state: { ...session.state } }); // controls go back to what holds
      },
    });
    this.#makePanels();
    this.#wire();
    this.#listen();
  }

  get views() {
    return this.scene.views;
  }

  #makePanels() {
    const { info, session, changes, views } = this;
    showSubject(info);
    this.tabs = tabs(byId("tabs"), { cell: "Cell", change: "Change", edits: "Edits" });
    this.selection = new Selection(store, session, info, views, {
      showTab: (key) => this.tabs.show(key),
      fail: showError,
    });
    const { selection } = this;
    this.tools = this.scene.tools = new Tools(store, views, info, {
      choose: (pane, at) => this.#chooseAt(pane, at),
      outline: (ring) => selection.setOutline(ring),
      add: (type, at) => changes.addCell(type, at),
      move: (at) => this.#moveTo(at),
      view: () => selection.setPictureOf("view"),
      home: () => views.lead.show(this.scene.whole),
    });
    new CellsPanel(store, info);
    new CellPanel(store, session, info, {
      choose: (id, go) => selection.choose(id, go),
      addGene: (symbol) => changePanel.addGene(symbol),
      fail: showError,
    });
    const changePanel = new ChangePanel(store, session, changes, info, selection, showError);
    new EditsPanel(store, session, changes, info, { select: (edit) => selection.select(edit), fail: showError, say });
    this.showMode = segments(byId("modes"), MODES, (mode) => store.set({ mode }));
  }

  #wire() {
    const renderSoon = debounced(() => this.#render(), RENDER_WAIT_MS);
    store.on(["target", "state"], renderSoon);
    store.on(["result"], () => sayProgress(store.get("result")));
    store.on(["mode"], () => this.showMode(store.get("mode")));
    store.on(["mode", "colour", "cellId"], () => this.writeLink());
    store.on(["state"], () => this.#showHistory());
    byId("undo").addEventListener("click", () => this.changes.undo());
    byId("redo").addEventListener("click", () => this.changes.redo());
    byId("keys").addEventListener("click", showKeys);
    window.addEventListener("hashchange", () => this.#follow(readLink(location.hash)));
  }

  #listen() {
    const mode = (name) => () => store.set({ mode: name }),
      tool = (name) => () => store.set({ tool: name });
    watchInput();
    listen({
      1: mode("split"),
      2: mode("curtain"),
      3: mode("real"),
      4: mode("generated"),
      v: tool("choose"),
      l: tool("lasso"),
      p: tool("polygon"),
      a: tool("add"),
      m: tool("move"),
      d: switchTheme,
      "?": showKeys,
      escape: () => this.#escape(),
      backspace: () => this.tools.outline.isBusy && this.tools.outline.removeCorner(),
      "ctrl+z": () => void this.changes.undo(),
      "ctrl+shift+z": () => void this.changes.redo(),
      "ctrl+y": () => void this.changes.redo(),
    });
  }

  start() {
    this.showMode(store.get("mode"));
    store.set({ state: { ...this.session.state }, marks: this.info.data.outlines ? "outlines" : "points" });
    this.scene.start(() => this.#follow(this.link));
  }

  // --- the address ---------------------------------------------------------------------------------------------------
  #currentLink() {
    const { lead } = this.views;
    return {
      at: lead.isOpen ? lead.visibleUm() : null,
      mode: store.get("mode"),
      colour: store.get("colour"),
      cell: store.get("cellId"),
    };
  }

  #follow({ at, mode, colour, cell }) {
    if (mode in MODES) store.set({ mode });
    if (at) this.views.lead.show(at, true);
    const isKnown = this.info.colours.includes(colour) && colour !== "gene";
    if (isKnown || colour?.startsWith("gene:")) store.set({ colour });
    if (cell && cell !== store.get("cellId")) this.selection.choose(cell, !at);
  }

  // --- what a click does ---------------------------------------------------------------------------------------------
  async #chooseAt(pane, at) {
    try {
      const id = await this.scene.cellAt(pane, at);
      if (id !== null) this.selection.choose(id, false);
    } catch (error) {
      showError(error);
    }
  }

  #moveTo(at) {
    const cell = store.get("cell"),
      repair = "Choose one with the tool Choose (V), then move it.";
    if (cell) this.changes.moveCell(cell, at);
    else showError({ message: "No cell is chosen.", repair });
  }

  #escape() {
    if (shutDrawer() || this.tools.cancel()) return;
    if (store.get("scopeKind") === "outline") store.set({ outline: null });
    hideMessage();
  }

  // --- what the state shows ------------------------------------------------------------------------------------------
  #showHistory() {
    const { can_undo, can_redo, edits } = store.get("state");
    byId("undo").disabled = !can_undo;
    byId("redo").disabled = !can_redo;
    this.tabs.label("edits").textContent = edits.length ? `Edits (${edits.length})` : "Edits";
  }

  #render() {
    const target = store.get("target");
    if (target) this.renderer.render(target);
    else this.renderer.clear();
  }
}

async function boot() {
  startChrome();
  say("Opening", true);
  const session = new Session((state) => store.set({ state }));
  const [info] = await Promise.all([getJson("info"), session.open()]);
  const explorer = new Explorer(info, session);
  explorer.start();
  say("");
  window.explorer = { store, session, views: explorer.views }; // for tests and for the curious
}

boot().catch((error) => {
  say("");
  showError(error);
});

// One pane: a deep-zoom slide, a canvas of marks over it, and pictures laid onto the slide.
// Positions are um of the section. In the viewer's own unit the section is 1 wide, whatever a slide's resolution.
/* global OpenSeadragon */

import { el } from "../dom.js";

const SCALE_PX = 120; // longest scale bar

/** From um of the section to the viewer's unit and back. `bounds` = {x_um, y_um, width_um, height_um}. */
export class Frame {
  constructor(bounds) {
    Object.assign(this, bounds);
  }

  toView([x_um, y_um]) {
    return new OpenSeadragon.Point((x_um - this.x_um) / this.width_um, (y_um - this.y_um) / this.width_um);
  }

  toUm(point) {
    return [point.x * this.width_um + this.x_um, point.y * this.width_um + this.y_um];
  }

  rectToView([x_um, y_um, width_um, height_um]) {
    const corner = this.toView([x_um, y_um]);
    return new OpenSeadragon.Rect(corner.x, corner.y, width_um / this.width_um, height_um / this.width_um);
  }

  rectToUm(rect) {
    const [x_um, y_um] = this.toUm(rect);
    return [x_um, y_um, rect.width * this.width_um, rect.height * this.width_um];
  }
}

/** Which colour is which stain; nothing for H&E. */
function stainLegend(stains) {
  if (!stains.length) return null;
  const rows = stains.map(({ name, colour }) =>
    el("li", {}, el("span", { class: "swatch", style: { "--colour": colour } }), name),
  );
  return el("ul", { class: "stains", "aria-label": "Stains" }, rows);
}

export class SlidePane {
  /** `slide`: {title, note, stains, source, rect_um}, where source is null for a pane without a slide. */
  constructor(parent, frame, slide) {
    this.frame = frame;
    this.title = slide.title;
    this.picture = el("div", { class: "picture" });
    this.canvas = el("canvas", { class: "marks", "aria-hidden": "true" });
    this.scale = el("div", { class: "scale", "aria-hidden": "true" });
    this.cross = el("div", { class: "cross", "aria-hidden": "true", hidden: true });
    this.centre = el("div", { class: "centre", "aria-hidden": "true" });
    this.note = el("small", { text: slide.note });
    this.empty = el("p", { class: "empty", hidden: true });
    this.box = el(
      "section",
      { class: "pane", "aria-label": slide.title },
      this.picture,
      this.canvas,
      this.empty,
      el("div", { class: "title", title: slide.note }, el("b", { text: slide.title }), " ", this.note),
      stainLegend(slide.stains),
      this.scale,
      this.cross,
      this.centre,
    );
    parent.append(this.box);
    this.dirty = true;
    this.place = null;
    this.failedTiles = 0;
    this.loadedTiles = 0;
    this.laid = new Map(); // key -> picture laid onto the slide
    this.#open(slide);
  }

  #open(slide) {
    this.viewer = new OpenSeadragon.Viewer({
      element: this.picture,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.35,
      crossOriginPolicy: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { dblClickToZoom: false },
      maxZoomPixelRatio: 12,
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.7,
      imageSmoothingEnabled: true,
      tabIndex: 0,
    });
    const viewer = this.viewer;
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute(
      "aria-label",
      `${slide.title} slide. Arrow keys move, plus and minus zoom, 0 shows the whole section, Enter acts at the centre.`,
    );
    viewer.addHandler("canvas-key", (event) => {
      if (["r", "R", "f"].includes(event.originalEvent.key)) event.preventDefaultAction = true; // no rotated sections
    });
    viewer.addHandler("tile-loaded", () => {
      this.loadedTiles += 1;
    });
    viewer.addHandler("tile-load-failed", () => {
      this.failedTiles += 1;
    });
    const rect = this.frame.rectToView(slide.rect_um);
    const source = slide.source ?? emptySource(slide.rect_um);
    viewer.open([{ tileSource: source, x: rect.x, y: rect.y, width: rect.width, opacity: slide.source ? 1 : 0 }]);
  }

  get isOpen() {
    return this.viewer.isOpen();
  }

  /** [zoom, x, y, width of the pane in px], in the viewer's unit; the present frame of an animation. */
  placeOf() {
    const centre = this.viewer.viewport.getCenter(true);
    return [this.viewer.viewport.getZoom(true), centre.x, centre.y, this.viewer.viewport.getContainerSize().x];
  }

  jumpTo([zoom, x, y]) {
    this.viewer.viewport.zoomTo(zoom, null, true);
    this.viewer.viewport.panTo(new OpenSeadragon.Point(x, y), true);
  }

  /** Visible rectangle [x, y, width, height] in um. */
  visibleUm() {
    return this.frame.rectToUm(this.viewer.viewport.getBounds(true));
  }

  umPerScreenPx() {
    const viewport = this.viewer.viewport;
    return this.frame.width_um / (viewport.getZoom(true) * viewport.getContainerSize().x);
  }

  screenOf(xy_um) {
    return this.viewer.viewport.viewportToViewerElementCoordinates(this.frame.toView(xy_um));
  }

  umOf(x_px, y_px) {
    return this.frame.toUm(
      this.viewer.viewport.viewerElementToViewportCoordinates(new OpenSeadragon.Point(x_px, y_px)),
    );
  }

  /** Move so that the rectangle is seen, on both panes if they are linked. */
  show(rect_um, immediately = false) {
    this.viewer.viewport.fitBounds(this.frame.rectToView(rect_um), immediately);
  }

  /** How bright the slide is under the marks, 0 to 1. */
  setSlideOpacity(opacity) {
    this.viewer.canvas.style.opacity = String(opacity);
  }

  /** Lay a picture onto the slide; null takes it away. */
  lay(key, url, rect_um) {
    const old = this.laid.get(key);
    if (old && url && old.rect === String(rect_um)) {
      old.element.src = url;
      return;
    }
    if (old) {
      this.viewer.removeOverlay(old.element);
      this.laid.delete(key);
    }
    if (!url) return;
    const element = el("img", { class: "laid", alt: "", src: url });
    this.viewer.addOverlay({ element, location: this.frame.rectToView(rect_um) });
    this.laid.set(key, { element, rect: String(rect_um) });
  }

  updateScale() {
    const umPerPx = this.umPerScreenPx(),
      longest = SCALE_PX * umPerPx,
      power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((n) => n * power).find((um) => um <= longest);
    this.scale.style.width = `${length / umPerPx}px`;
    this.scale.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
  }

  /** The 2D context of the marks, cleared, one unit per screen px; null while the pane is hidden. */
  clearedContext() {
    const width = this.box.clientWidth,
      height = this.box.clientHeight,
      ratio = window.devicePixelRatio || 1;
    if (!width || !height) return null;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }
}

/** A slide of nothing, so that a pane without a slide zooms and moves as the others do. */
function emptySource([, , width_um, height_um]) {
  const width = Math.round(width_um),
    height = Math.round(height_um);
  return {
    width,
    height,
    tileSize: Math.max(width, height),
    minLevel: 0,
    maxLevel: 0,
    getTileUrl: () => "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==",
  };
}

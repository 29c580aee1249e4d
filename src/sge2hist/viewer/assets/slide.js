"use strict";
// One viewer per layer; all show the same place. In viewport coordinates the section is 1 wide, whatever a layer's resolution.
const content = JSON.parse(document.getElementById("content").textContent);
const views = [];
const main = document.getElementById("views");

function element(tag, name, text, parent) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function tileSource(layer) {
  return {
    width: layer.width, height: layer.height, tileSize: layer.tile, tileOverlap: 0, minLevel: 0, maxLevel: layer.levels - 1,
    getTileUrl: (level, x, y) => `tiles/${layer.key}/${level}/${x}_${y}.${layer.suffix}`,
  };
}

function makeView(layer) {
  const box = element("div", "view", "", main);
  const picture = element("div", "picture", "", box);
  const title = element("div", "title", layer.title + " ", box);
  element("small", "", layer.note, title);
  const overlay = element("canvas", "overlay", "", box);
  const scale = element("div", "scale", "", box), cross = element("div", "cross", "", box);
  return { layer, box, picture, overlay, scale, cross, tiles: 0, failed: 0 };
}

function openViewer(view) {
  const { layer, picture } = view;
  view.viewer = OpenSeadragon({
    element: picture, tileSources: tileSource(layer), drawer: "canvas", showNavigationControl: false, animationTime: 0.4,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, maxZoomPixelRatio: 8, visibilityRatio: 0.3,
    imageSmoothingEnabled: layer.suffix === "jpg", crossOriginPolicy: false,
  });
  view.viewer.addHandler("tile-loaded", () => { view.tiles += 1; });
  view.viewer.addHandler("tile-load-failed", () => { view.failed += 1; });
  new OpenSeadragon.MouseTracker({
    element: picture, moveHandler: (event) => pointAt(view, event.position), leaveHandler: () => pointAt(view, null),
  });
  view.viewer.addHandler("canvas-click", (event) => {
    if (event.quick) chooseCell(view.viewer.viewport.viewerElementToViewportCoordinates(event.position));
  });
  picture.addEventListener("pointerdown", () => { hand = view; });
  picture.addEventListener("wheel", () => { hand = view; }, { passive: true });
}

// --- linked: every frame, the view that moved takes the others along -------------------------------------------------
let hand = null; // the view that was touched last; it leads when several move at once

function placeOf(view) {
  const centre = view.viewer.viewport.getCenter(true);
  return [view.viewer.viewport.getZoom(true), centre.x, centre.y];
}

function follow() {
  const open = shownViews().filter((view) => view.viewer.isOpen());
  const moved = open.filter((view) => !view.place || placeOf(view).some((value, i) => Math.abs(value - view.place[i]) > 1e-9));
  const leader = moved.includes(hand) ? hand : moved.find((view) => view.place) || moved[0];
  if (leader) {
    const [zoom, x, y] = placeOf(leader);
    for (const view of open) {
      if (view !== leader) {
        view.viewer.viewport.zoomTo(zoom, null, true);
        view.viewer.viewport.panTo(new OpenSeadragon.Point(x, y), true);
      }
      view.place = placeOf(view);
      drawScale(view, zoom);
      drawCells(view);
    }
  }
  requestAnimationFrame(follow);
}

// --- scale bar, pointer, legend ----------------------------------------------------------------------------------------
function drawScale(view, zoom) {
  const umPerPx = content.width_um / (zoom * view.viewer.viewport.getContainerSize().x);
  const most = 120 * umPerPx, power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * power).find((um) => um <= most);
  view.scale.style.width = `${length / umPerPx}px`;
  view.scale.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
}

function pointAt(source, position) {
  const point = position && source.viewer.isOpen() ? source.viewer.viewport.viewerElementToViewportCoordinates(position) : null;
  for (const view of views) {
    view.cross.style.display = point && view !== source ? "block" : "none";
    if (point) { view.cross.style.left = `${position.x}px`; view.cross.style.top = `${position.y}px`; }
  }
  const um = (value) => Math.round(value * content.width_um);
  document.getElementById("place").textContent = point
    ? `x ${content.x_um + um(point.x)}, y ${content.y_um + um(point.y)} µm` : "";
}

const shownViews = () => views.filter((view) => !view.box.hidden);

function arrange() {
  const n = shownViews().length || 1;
  const wide = main.clientWidth / main.clientHeight > (content.width_um / content.height_um) * 0.8;
  const columns = n === 4 ? 2 : wide ? n : 1;
  main.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  main.style.gridTemplateRows = `repeat(${Math.ceil(n / columns)}, minmax(0, 1fr))`;
  for (const view of views) view.box.style.display = view.box.hidden ? "none" : "";
}

for (const layer of content.layers) {
  const view = makeView(layer);
  views.push(view);
  const label = element("label", "", "", document.getElementById("toggles"));
  const box = element("input", "", "", label);
  box.type = "checkbox";
  box.checked = true;
  label.append(` ${layer.title}`);
  box.addEventListener("change", () => { view.box.hidden = !box.checked; view.place = null; arrange(); });
}
for (const type of content.legend) {
  const row = element(cells ? "button" : "span", "type", "", document.getElementById("legend"));
  if (cells) makeFilter(row, content.legend.indexOf(type));
  element("span", "swatch", "", row).style.background = type.colour;
  row.append(type.name + " ");
  element("small", "", type.n.toLocaleString("en"), row);
}
document.getElementById("home").addEventListener("click", () => { hand = shownViews()[0]; hand.viewer.viewport.goHome(); });
window.addEventListener("resize", () => { arrange(); views.forEach((view) => { view.place = null; }); });
arrange();
views.forEach(openViewer); // not before the boxes have their size: a viewer fits the section into the box that it finds
requestAnimationFrame(follow);
window.slideViews = views;

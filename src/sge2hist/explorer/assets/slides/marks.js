// What is painted over a slide: cells, the chosen one and its neighbours, areas of edits, and the outline being made.

import { areaOf } from "../edit_list.js";
import { NO_VALUE, colourOf } from "./colours.js";

const ACCENT = "#0b6780",
  HALO = "#ffffffd0",
  DARK = "#1a1f24";

/** Colour of each cell: by type, or by its value between the two ends of the scale. */
export function cellColours(cells, colour, types, scale) {
  if (colour === "type") return cells.type.map((type) => types[type]?.colour ?? NO_VALUE);
  const table = colour.startsWith("gene:") ? "viridis" : "inferno";
  return (cells.value ?? cells.type.map(() => null)).map((value) => colourOf(value, scale.low, scale.high, table));
}

/** Side of the square of a cell on the screen, px: less than the spacing, so that the slide stays visible. */
export const cellPx = (spacing_um, umPerPx) => Math.min(5.5, Math.max(1.6, (0.4 * spacing_um) / umPerPx));

/** Paint cells. `hidden` holds numbers of types that the legend hides. */
export function paintCells(context, pane, cells, colours, { marks, hidden, spacing_um }) {
  if (!cells || marks === "none") return;
  const side = cellPx(spacing_um, pane.umPerScreenPx()),
    [left, top, width, height] = pane.visibleUm();
  const from = pane.screenOf([0, 0]),
    perUm = 1 / pane.umPerScreenPx();
  const ringed = side > 4,
    strength = context.globalAlpha;
  for (let i = 0; i < cells.id.length; i += 1) {
    if (hidden.has(cells.type[i])) continue;
    const x = cells.x[i],
      y = cells.y[i];
    if (x < left - 20 || y < top - 20 || x > left + width + 20 || y > top + height + 20) continue;
    const outline = marks === "outlines" ? cells.outline?.[i] : null;
    context.fillStyle = colours[i];
    if (outline) {
      tracePath(context, outline, from, perUm);
      context.globalAlpha = 0.3 * strength;
      context.fill();
      context.globalAlpha = strength;
      context.strokeStyle = colours[i];
      context.lineWidth = 1.5;
      context.stroke();
    } else {
      const px = from.x + x * perUm,
        py = from.y + y * perUm;
      if (ringed) {
        context.fillStyle = HALO;
        context.fillRect(px - side / 2 - 1, py - side / 2 - 1, side + 2, side + 2);
        context.fillStyle = colours[i];
      }
      context.fillRect(px - side / 2, py - side / 2, side, side);
    }
    if (cells.edited?.[i]) dot(context, from.x + x * perUm, from.y + y * perUm);
  }
}

/** An edited cell has a dark centre: the picture stays visible where many are edited. */
function dot(context, x, y) {
  context.fillStyle = DARK;
  context.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
}

function tracePath(context, flat, from, perUm) {
  context.beginPath();
  for (let k = 0; k < flat.length; k += 2) context.lineTo(from.x + flat[k] * perUm, from.y + flat[k + 1] * perUm);
  context.closePath();
}

function ring(context, at, radius, colour, width) {
  for (const [style, line] of [
    ["#fff", width + 2],
    [colour, width],
  ]) {
    context.beginPath();
    context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    context.strokeStyle = style;
    context.lineWidth = line;
    context.stroke();
  }
}

/** The chosen cell, lines to its neighbours, and the cells that are listed as like it. */
export function paintChosen(context, pane, { cell, neighbours, similar, patch_um }) {
  for (const other of similar ?? []) ring(context, pane.screenOf([other.x, other.y]), 6, "#b3541e", 2);
  if (!cell) return;
  const at = pane.screenOf([cell.x, cell.y]);
  if (pane.umPerScreenPx() < 1) {
    context.strokeStyle = `${ACCENT}90`;
    context.lineWidth = 1;
    for (const other of neighbours ?? []) {
      const to = pane.screenOf([other.x, other.y]);
      context.beginPath();
      context.moveTo(at.x, at.y);
      context.lineTo(to.x, to.y);
      context.stroke();
    }
  }
  ring(context, at, 8, ACCENT, 2.5);
  if (patch_um) frame(context, pane, [cell.x - patch_um / 2, cell.y - patch_um / 2, patch_um, patch_um]);
}

/** A thin frame around a rectangle in um: what the pictures show. */
export function frame(context, pane, [x, y, width, height]) {
  const a = pane.screenOf([x, y]),
    b = pane.screenOf([x + width, y + height]);
  for (const [style, line] of [
    ["#ffffffc0", 3],
    [ACCENT, 1.2],
  ]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

/** Outlines of areas: those of edits thin, the one that is being changed strong. */
export function paintAreas(context, pane, edits, scope) {
  const seen = new Set();
  for (const edit of edits) {
    const area = areaOf(edit.scope),
      key = JSON.stringify(edit.scope);
    if (!area || seen.has(key)) continue;
    seen.add(key);
    path(context, pane, area, true);
    stroke(context, edit.enabled === false ? "#77808a" : "#b3541e", 1.5, [5, 4]);
  }
  const own = areaOf(scope);
  if (own) {
    path(context, pane, own, true);
    stroke(context, ACCENT, 2, []);
  }
}

/** The outline that is being made. */
export function paintOutline(context, pane, tool) {
  if (!tool.corners_um.length) return;
  path(context, pane, tool.shown_um, false);
  stroke(context, ACCENT, 2, []);
  if (tool.isLasso) return;
  tool.corners_um.forEach((corner, i) => ring(context, pane.screenOf(corner), i ? 3 : 5, ACCENT, 2));
}

function path(context, pane, corners, closed) {
  context.beginPath();
  for (const corner of corners) {
    const at = pane.screenOf(corner);
    context.lineTo(at.x, at.y);
  }
  if (closed) context.closePath();
}

function stroke(context, colour, width, dash) {
  for (const [style, line] of [
    ["#ffffffc0", width + 2],
    [colour, width],
  ]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.setLineDash(dash);
    context.stroke();
  }
  context.setLineDash([]);
}

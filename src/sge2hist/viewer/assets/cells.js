"use strict";
// Cells over the pictures: those of the types that are pressed in the legend, and the one that was clicked.
const cells = window.slideCells && {
  ...window.slideCells,
  xy_um: new Float32Array(bytesOf(window.slideCells.xy_um)),
  type: new Int16Array(bytesOf(window.slideCells.type)),
};
const pressed = new Set(); // rows of the legend
let chosen = -1; // number of the cell that was clicked

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

function makeFilter(button, row) {
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.title = "show the cells of this type alone";
  button.addEventListener("click", () => {
    if (!pressed.delete(row)) pressed.add(row);
    button.setAttribute("aria-pressed", String(pressed.has(row)));
    views.forEach(drawCells);
  });
}

function chooseCell(point) {
  if (!cells) return;
  const x = point.x * content.width_um, y = point.y * content.width_um;
  let nearest = (0.75 * cells.spacing_um) ** 2;
  chosen = -1;
  for (let i = 0; i < cells.type.length; i += 1) {
    const distance = (cells.xy_um[2 * i] - x) ** 2 + (cells.xy_um[2 * i + 1] - y) ** 2;
    if (distance < nearest) { nearest = distance; chosen = i; }
  }
  const um = (value, corner) => (value + corner).toFixed(1);
  document.getElementById("cell").textContent = chosen < 0 ? "" : `${content.legend[cells.type[chosen]]?.name ?? "unknown"}, cell `
    + `${cells.ids[chosen]}, x ${um(cells.xy_um[2 * chosen], content.x_um)}, y ${um(cells.xy_um[2 * chosen + 1], content.y_um)} µm`;
  views.forEach(drawCells);
}

function drawCells(view) {
  if (!cells || !view.viewer?.isOpen()) return;
  const canvas = view.overlay, ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight, area = view.viewer.viewport.getBounds(true);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const scale = width / (area.width * content.width_um), radius = Math.max(1, 0.4 * cells.spacing_um * scale);
  const at = (i) => [cells.xy_um[2 * i] * scale - (area.x * width) / area.width, cells.xy_um[2 * i + 1] * scale - (area.y * width) / area.width];
  const ofTypes = view.layer.key === "types";
  if (pressed.size && ofTypes) {
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.globalAlpha = 0.85;
    context.fillRect(0, 0, width, height);
    context.globalAlpha = 1;
  }
  context.lineWidth = 1.5;
  for (let i = 0; pressed.size && i < cells.type.length; i += 1) {
    if (!pressed.has(cells.type[i])) continue;
    const [x, y] = at(i);
    if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
    context.fillStyle = context.strokeStyle = content.legend[cells.type[i]].colour;
    if (radius < 3) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    else ring(context, x, y, radius, ofTypes);
  }
  if (chosen >= 0) {
    context.lineWidth = 3;
    for (const [colour, extra] of [["#fff", 4], ["#000", 7]]) {
      context.strokeStyle = colour;
      ring(context, ...at(chosen), radius + extra, false);
    }
  }
}

function ring(context, x, y, radius, full) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (full) context.fill();
  else context.stroke();
}

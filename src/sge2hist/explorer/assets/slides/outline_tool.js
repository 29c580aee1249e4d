// Outline an area of the slide: a lasso (press and drag) or a polygon (a click or Enter per corner, closed by double click or Enter
// on the first corner). Written here because Annotorious (3.8, 690 kB) generates code at run time, which the page's content
// security policy forbids, and has no lasso.

const CLOSE_PX = 10; // a click this near to the first corner closes the polygon
const STEP_PX = 3; // shortest step of a lasso
const MAX_CORNERS = 400;

export class OutlineTool {
  /** `done(ring_um)` gets the corners, not closed, of a finished area. */
  constructor(done, changed) {
    this.done = done;
    this.changed = changed;
    this.cancel();
  }

  cancel() {
    this.corners_um = [];
    this.pointer_um = null;
    this.isLasso = false;
    this.changed?.();
  }

  get isBusy() {
    return this.corners_um.length > 0;
  }

  /** A corner of a polygon, or its end when it is the first one again. */
  addCorner(pane, xy_um) {
    const first = this.corners_um[0];
    if (first && this.corners_um.length > 2 && distance(pane.screenOf(first), pane.screenOf(xy_um)) < CLOSE_PX) {
      this.finish();
      return;
    }
    const last = this.corners_um.at(-1);
    if (!last || distance(pane.screenOf(last), pane.screenOf(xy_um)) >= 1) this.corners_um.push(xy_um);
    this.changed?.();
  }

  removeCorner() {
    this.corners_um.pop();
    this.changed?.();
  }

  startLasso(xy_um) {
    this.corners_um = [xy_um];
    this.isLasso = true;
  }

  moveTo(pane, xy_um) {
    this.pointer_um = xy_um;
    const last = this.corners_um.at(-1);
    if (this.isLasso && distance(pane.screenOf(last), pane.screenOf(xy_um)) >= STEP_PX) this.corners_um.push(xy_um);
    this.changed?.();
  }

  finish() {
    const ring_um = thinned(this.corners_um, MAX_CORNERS);
    this.cancel();
    if (ring_um.length > 2) this.done(ring_um);
  }

  /** Corners as they are shown while the area is being outlined. */
  get shown_um() {
    return this.pointer_um && !this.isLasso ? [...this.corners_um, this.pointer_um] : this.corners_um;
  }
}

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

function thinned(corners, most) {
  const step = Math.ceil(corners.length / most);
  return corners.filter((_, i) => i % step === 0);
}

/** Whether a position lies inside a ring of corners (even-odd rule). */
export function isInside([x, y], ring) {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
    const [ax, ay] = ring[i],
      [bx, by] = ring[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

/** Bounding rectangle [x, y, width, height] of a ring. */
export function boundsOf(ring) {
  const xs = ring.map(([x]) => x),
    ys = ring.map(([, y]) => y),
    x = Math.min(...xs),
    y = Math.min(...ys);
  return [x, y, Math.max(...xs) - x, Math.max(...ys) - y];
}

// What edits mean on the page: which one belongs to a scope, how each is described, and which cell an edit added.

const sorted = (scope) => JSON.stringify(Object.entries(scope ?? {}).sort());
const sameScope = (a, b) => sorted(a) === sorted(b);

/** The edits of the list that act on exactly this scope. */
export const editsOf = (state, scope) => state.edits.filter((edit) => sameScope(edit.scope, scope));

/** Symbols of the genes that edits of exactly this scope change. */
export const genesOf = (state, scope) => [
  ...new Set(
    editsOf(state, scope)
      .map((edit) => edit.action.gene)
      .filter(Boolean),
  ),
];

/** The edit of a gene on a scope, if there is one. */
export const geneEdit = (state, scope, symbol) => editsOf(state, scope).findLast((edit) => edit.action.gene === symbol);

/** The edit on a scope whose action has this key. */
export const editWith = (state, scope, key) => editsOf(state, scope).findLast((edit) => key in edit.action);

/** One line: what an edit does. */
export function describeAction(action) {
  if ("gene" in action)
    return "factor" in action
      ? `${action.gene} × ${+action.factor.toFixed(2)}`
      : `${action.gene} = ${action.counts} counts`;
  if ("set_type" in action) return `type becomes ${action.set_type}`;
  if ("remove" in action) return "removed";
  if ("move_um" in action) return `moved by ${Math.hypot(...action.move_um).toFixed(0)} µm`;
  if ("at_um" in action) return `${action.at_um.length} × ${action.add_type} added`;
  return `${action.add_type} added every ${action.spacing_um} µm`;
}

/** One line: which cells an edit acts on. */
export function describeScope(scope) {
  if (!scope) return "at chosen places";
  const type = scope.type ? `${scope.type} cells` : "all cells";
  if ("cell" in scope) return `cell ${scope.cell}`;
  if ("cells" in scope) return `${scope.cells.length} cells`;
  if ("rectangle_um" in scope) return `${type} in a rectangle`;
  if ("polygon_um" in scope) return `${type} in an outline`;
  return `${type} of the section`;
}

/** {edit, index} of an added cell: the how-manieth of its edit it is; null for other cells. */
export function whoAdded(state, cell) {
  const number = /^added_(\d+)$/.exec(cell ?? "")?.[1];
  if (number === undefined) return null;
  let index = Number(number);
  for (const edit of state.edits) {
    if (!("add_type" in edit.action) || edit.enabled === false) continue;
    const n = edit.action.at_um?.length ?? edit.n_cells;
    if (index < n) return { edit, index };
    index -= n;
  }
  return null;
}

/** Corners in um of the area of an edit or scope, for the slide; null for cells named one by one. */
export function areaOf(scope) {
  if (scope?.polygon_um) return scope.polygon_um;
  if (!scope?.rectangle_um) return null;
  const [x, y, width, height] = scope.rectangle_um;
  return [
    [x, y],
    [x + width, y],
    [x + width, y + height],
    [x, y + height],
  ];
}

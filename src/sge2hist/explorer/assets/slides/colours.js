// Colours of cells by a number: tables of viridis and inferno, and a scale between two quantiles.

// Every 16th entry of the tables of matplotlib (CC0); between them colours are interpolated.
const TABLES = {
  viridis: [
    "440154",
    "481a6c",
    "472f7d",
    "414487",
    "39568c",
    "31688e",
    "2a788e",
    "23888e",
    "1f988b",
    "22a884",
    "35b779",
    "54c568",
    "7ad151",
    "a5db36",
    "d2e21b",
    "fde725",
  ],
  inferno: [
    "000004",
    "0c0826",
    "240c4f",
    "420a68",
    "5d126e",
    "781c6d",
    "932667",
    "ae305c",
    "c73e4c",
    "dd513a",
    "ed6925",
    "f8850f",
    "fca50a",
    "fac62d",
    "f2e661",
    "fcffa4",
  ],
};
export const NO_VALUE = "#b8bcc2";

const rgbOf = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** 256 CSS colours of a table. */
function ramp(name) {
  const stops = TABLES[name].map(rgbOf);
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1),
      low = Math.min(stops.length - 2, Math.floor(at)),
      t = at - low;
    const mixed = stops[low].map((value, k) => Math.round(value + t * (stops[low + 1][k] - value)));
    return `rgb(${mixed.join(" ")})`;
  });
}

const RAMPS = Object.fromEntries(Object.keys(TABLES).map((name) => [name, ramp(name)]));

/** Colour of a value on a scale from `low` to `high`, clipped; values that are missing are grey. */
export function colourOf(value, low, high, table) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NO_VALUE;
  const t = high > low ? (value - low) / (high - low) : value > low ? 1 : 0;
  return RAMPS[table][Math.round(255 * Math.min(1, Math.max(0, t)))];
}

/** CSS gradient of a table, for a colour bar. */
export const gradientOf = (table) => `linear-gradient(to right, ${TABLES[table].map((hex) => `#${hex}`).join(", ")})`;

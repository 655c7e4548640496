// From codes to values, and from values to colours.

const DECADES = 4; // of a logarithmic scale

// The values of all 256 codes of a picture; NaN for 0.
function valuesOf(picture) {
  return Float64Array.from({ length: 256 }, (_, code) =>
    code ? picture.low + (picture.high - picture.low) * ((code - 1) / 254) ** picture.power : NaN
  );
}

// The values between which the colours of a picture lie.
function rangeOf(picture, scale, shared) {
  const same = shared ? data.pictures.filter((p) => p.quantity === picture.quantity) : [picture];
  const high = Math.max(...same.map((p) => p.shown[1]));
  if (scale === "log" && quantities[picture.quantity].scales) return [high / 10 ** DECADES, high];
  return [Math.min(...same.map((p) => p.shown[0])), high];
}

// Where a value lies in a range, 0 to 1. Quantities that may be negative have a linear scale.
function placeOf(value, [low, high], scale, quantity) {
  let place = (value - low) / (high - low || 1);
  if (quantities[quantity].scales) {
    if (scale === "root") place = Math.sqrt(Math.max(place, 0));
    if (scale === "log") place = Math.log10(Math.max(value, low) / low || 1) / DECADES;
  }
  return Math.min(Math.max(place, 0), 1);
}

// Of each code of a picture: its place in the range, NaN for 0, and its colour, transparent for 0.
function looksOf(picture, scale, shared) {
  const range = rangeOf(picture, scale, shared);
  const table = quantities[picture.quantity].table;
  const places = picture.values.map((value) => placeOf(value, range, scale, picture.quantity));
  const colours = new Uint8ClampedArray(256 * 4);
  places.forEach((place, code) => {
    if (code) colours.set([...table.subarray(3 * Math.round(255 * place)).subarray(0, 3), 255], 4 * code);
  });
  return { range, places, colours };
}

// Draw a picture, one pixel per window.
function paint(canvas, picture, colours) {
  const [rows, columns] = data.shape;
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  picture.codes.forEach((code, i) => {
    for (let channel = 0; channel < 4; channel++) image.data[4 * i + channel] = colours[4 * code + channel];
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function written(value) {
  if (value === null || Number.isNaN(value)) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const rounded = Number(value.toPrecision(3));
  return size >= 1e-3 && size < 1e5 ? String(rounded) : rounded.toExponential().replace("e+", "e");
}

// The large picture: a frame, a map over it, its contour, and the marks of places.

const PINS = ["#ffd54a", "#4ad9ff", "#ff7ac6", "#8dff7a", "#ff9d4a", "#b79bff"];
const small = document.createElement("canvas"); // the map, one pixel per window
let looks = null;
let contour = null; // in windows

// A line where the places of a map cross a level, in windows.
function contourOf(picture, places, level) {
  const [rows, columns] = data.shape;
  const line = new Path2D();
  const at = (row, column) => places[picture.codes[row * columns + column]];
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const corners = [[0, 0], [0, 1], [1, 1], [1, 0]].map(([down, right]) => [column + right, row + down, at(row + down, column + right)]);
      if (corners.some((corner) => Number.isNaN(corner[2]))) continue;
      const crossings = [];
      corners.forEach(([x, y, value], i) => {
        const [otherX, otherY, other] = corners[(i + 1) % 4];
        if (value >= level === other >= level) return;
        const share = (level - value) / (other - value);
        crossings.push([x + share * (otherX - x) + 0.5, y + share * (otherY - y) + 0.5]);
      });
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        line.moveTo(...crossings[i]);
        line.lineTo(...crossings[i + 1]);
      }
    }
  }
  return line;
}

function drawPicture(canvas) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.drawImage(frames[view.frame], 0, 0, width, height);
  const [left, top, across, down] = data.maps;
  const [frameLeft, frameTop, frameAcross, frameDown] = data.frame;
  const box = [
    ((left - frameLeft) / frameAcross) * width, ((top - frameTop) / frameDown) * height,
    (across / frameAcross) * width, (down / frameDown) * height,
  ];
  context.imageSmoothingEnabled = false;
  context.globalAlpha = view.opacity;
  context.drawImage(small, ...box);
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
  if (!view.contour) return;
  const [rows, columns] = data.shape;
  const line = new Path2D();
  line.addPath(
    contour,
    new DOMMatrix([box[2] / columns, 0, 0, box[3] / rows, box[0], box[1]])
  );
  const thick = width / stage.clientWidth;
  for (const [colour, size] of [["rgb(0 0 0 / .6)", 3], ["#fff", 1.2]]) {
    context.strokeStyle = colour;
    context.lineWidth = size * thick;
    context.stroke(line);
  }
}

function drawMarks(canvas) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const unit = width / stage.clientWidth;
  context.clearRect(0, 0, width, height);
  if (view.outline.length) {
    context.beginPath();
    for (const [x, y] of view.outline) context.lineTo(x * width, y * height);
    context.closePath();
    context.fillStyle = "rgb(255 255 255 / .12)";
    context.fill();
    context.lineWidth = 1.5 * unit;
    context.strokeStyle = "#000";
    context.stroke();
    context.setLineDash([4 * unit, 4 * unit]);
    context.strokeStyle = "#fff";
    context.stroke();
    context.setLineDash([]);
  }
  context.font = `600 ${11 * unit}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  view.pins.forEach((pin, i) => {
    const [x, y] = shareOf(pin);
    context.beginPath();
    context.arc(x * width, y * height, 8 * unit, 0, 7);
    context.fillStyle = PINS[i % PINS.length];
    context.fill();
    context.lineWidth = 1.5 * unit;
    context.strokeStyle = "#000";
    context.stroke();
    context.fillStyle = "#000";
    context.fillText(String(i + 1), x * width, y * height + unit / 2);
  });
}

const stage = element("stage");
onChange((what) => {
  const among = (...names) => names.some((name) => what.includes(name));
  if (among("picture", "scale", "shared")) {
    looks = looksOf(view.picture, view.scale, view.shared);
    paint(small, view.picture, looks.colours);
    const [low, high] = looks.range;
    element("title").textContent = view.picture.title;
    element("low").textContent = written(low);
    element("high").textContent = written(high);
    element("colours").style.background = quantities[view.picture.quantity].gradient;
  }
  if (view.contour && among("picture", "scale", "shared", "contour", "level")) {
    contour = contourOf(view.picture, looks.places, view.level);
  }
  if (among("picture", "scale", "shared", "contour", "level", "frame", "opacity", "size")) drawPicture(element("picture"));
  if (among("pins", "outline", "size")) drawMarks(element("marks"));
  if (among("picture", "cursor")) {
    element("readout").textContent = view.cursor ? described(view.cursor) : "";
  }
});

function described(window) {
  const [y, x] = centreOf(window).map(sizedAs);
  return `${written(valueAt(view.picture, window))}  at y ${y}, x ${x} ${data.units}  (row ${window[0]}, column ${window[1]})`;
}

function fitStage() {
  for (const canvas of stage.querySelectorAll("canvas")) {
    canvas.width = Math.max(1, Math.round(stage.clientWidth * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(stage.clientHeight * devicePixelRatio));
  }
  change({ size: stage.clientWidth });
}

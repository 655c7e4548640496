// Windows at three times beside what the model makes of them, at the pinned places.

const SIDE = 88; // pixels of a window that is drawn
const sheet = data.windows && Object.assign(new Image(), { src: data.windows.picture });

// The row of the sheet that shows the cell of a map's pixel.
function sheetRow(pixel) {
  const { side, cells } = data.windows;
  const [row, column] = pixel.map((n, axis) => Math.min(Math.floor(((n + 0.5) * data.binning[axis]) / side), cells[axis] - 1));
  return row * cells[1] + column;
}

// The centre of window ``row``, ``column`` of all, in the page's units.
function centreOfWindow(place) {
  return place.map((n, axis) => data.origin[axis] + ((n + 0.5) / data.binning[axis] - 0.5) * data.spacing[axis]);
}

function drawPair(row, time) {
  const { size } = data.windows;
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * SIDE + 3, height: SIDE });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  for (const half of [0, 1]) {
    context.drawImage(sheet, (2 * time + half) * size, row * size, size, size, half * (SIDE + 3), 0, SIDE, SIDE);
  }
  return canvas;
}

function drawWindows() {
  element("windows-panel").hidden = !view.pins.length;
  const { frames: times, places, correlation } = data.windows;
  element("windows").replaceChildren(
    ...view.pins.map((pixel, i) => {
      const row = sheetRow(pixel);
      const line = Object.assign(document.createElement("div"), { className: "pairs" });
      const [y, x] = centreOfWindow(places[row]).map(sizedAs);
      const caption = Object.assign(document.createElement("p"), { className: "note", textContent: `Place ${i + 1}: window at y ${y}, x ${x} ${data.units}` });
      const pairs = times.map((frame, time) => {
        const alike = correlation[row][time];
        const figure = document.createElement("figure");
        const text = `frame ${frame}: ${alike === null ? "not valid" : `correlation ${alike.toFixed(2)}`}`;
        figure.append(drawPair(row, time), Object.assign(document.createElement("figcaption"), { textContent: text }));
        return figure;
      });
      line.append(caption, ...pairs);
      return line;
    })
  );
}

onChange((what) => {
  if (sheet && what.includes("pins")) drawWindows();
});

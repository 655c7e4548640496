// Places: pinned windows, the windows within an outline, and the commands that go on from there.

function pin(window) {
  const others = view.pins.filter((p) => p.join() !== window.join());
  change({ pins: others.length < view.pins.length ? others : [...view.pins, window] });
}

// Whether x, y lies within a closed outline: a line to the right crosses it an odd number of times.
function isInside(x, y, outline) {
  let inside = false;
  outline.forEach(([x1, y1], i) => {
    const [x2, y2] = outline[(i + 1) % outline.length];
    if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) inside = !inside;
  });
  return inside;
}

function windowsWithin(outline) {
  const [rows, columns] = data.shape;
  const windows = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (isInside(...shareOf([row, column]), outline)) windows.push([row, column]);
    }
  }
  return windows;
}

function summaryOf(outline) {
  const windows = windowsWithin(outline);
  const values = windows.map((window) => valueAt(view.picture, window)).filter((value) => !Number.isNaN(value));
  if (!values.length) return `${windows.length} windows selected, none with a value`;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  return `${windows.length} windows selected: mean ${written(mean)}, from ${written(low)} to ${written(high)}`;
}

// The centre of a window in pixels of the movie.
function pixelsOf(window) {
  return centreOf(window).map((length, axis) => Math.round((length / data.pixel[axis]) * 10) / 10);
}

// Rows and columns of the movie's frame around an outline, first:last + 1, as far as they were analysed.
function boxAround(outline) {
  const [left, top, width, height] = data.frame;
  const [firstRow, endRow, firstColumn, endColumn] = data.region;
  const span = (shares, origin, size, pixel, first, end) => {
    const places = shares.map((share) => (origin + share * size) / pixel + 0.5);
    return [Math.max(first, Math.floor(Math.min(...places))), Math.min(end, Math.ceil(Math.max(...places)))].join(":");
  };
  const rows = span(outline.map((p) => p[1]), top, height, data.pixel[0], firstRow, endRow);
  return `${rows},${span(outline.map((p) => p[0]), left, width, data.pixel[1], firstColumn, endColumn)}`;
}

function setCommand(id, text) {
  element(id).textContent = text;
  element(id).parentElement.hidden = !text;
}

function listPins() {
  element("pins").hidden = !view.pins.length;
  element("pins").tBodies[0].replaceChildren(
    ...view.pins.map((window, i) => {
      const row = document.createElement("tr");
      const number = document.createElement("b");
      number.textContent = String(i + 1);
      const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: "Remove" });
      remove.addEventListener("click", () => pin(window));
      const texts = [...centreOf(window).map(sizedAs), written(valueAt(view.picture, window))];
      for (const content of [number, ...texts, remove]) row.insertCell().append(content);
      return row;
    })
  );
}

onChange((what) => {
  if (!what.some((name) => ["picture", "pins", "outline"].includes(name))) return;
  listPins();
  element("selection").hidden = !view.outline.length;
  if (view.outline.length) element("selection").textContent = summaryOf(view.outline);
  const at = view.pins.map((window) => ` --at ${pixelsOf(window).join()}`).join("");
  setCommand("trace", data.file && at && `hrtemvae trace ${data.file}${at}`);
  setCommand("lattice", data.file && view.outline.length ? `hrtemvae lattice ${data.file} --box ${boxAround(view.outline)}` : "");
  element("clear").hidden = !view.pins.length && !view.outline.length;
});

// A click pins the window under it; a drag outlines a box or whatever the pointer draws.
function followPointer() {
  let start = null;
  const within = (event) => sharesUnder(event, stage).map((share) => Math.min(Math.max(share, 0), 1));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = { x: event.clientX, y: event.clientY, drawn: [within(event)], moved: false };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!start) return;
    start.moved ||= Math.hypot(event.clientX - start.x, event.clientY - start.y) > 4;
    if (!start.moved) return;
    start.drawn.push(within(event));
    const [[x1, y1], [x2, y2]] = [start.drawn[0], start.drawn.at(-1)];
    change({ outline: view.drag === "box" ? [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] : [...start.drawn] });
  });
  stage.addEventListener("pointerup", (event) => {
    const window = windowAt(...within(event));
    if (start && !start.moved && window) pin(window);
    start = null;
  });
  stage.addEventListener("pointercancel", () => (start = null));
}

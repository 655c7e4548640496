// What is embedded, what is shown of it, and how that changes.

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const quantities = Object.fromEntries(data.quantities.map((q) => [q.name, { ...q, table: bytesOf(q.colours) }]));

const frames = [...document.querySelectorAll("img.frame")].sort((a, b) => a.dataset.frame - b.dataset.frame);
const view = {
  picture: null, // the map that is shown
  frame: 0,
  opacity: 0.6,
  scale: "linear",
  shared: false,
  contour: false,
  level: 0.5,
  drag: "box",
  cursor: null, // row and column of a window
  pins: [], // rows and columns of windows
  outline: [], // of the places that are selected: x and y, as shares of the frame
};
const followers = [];

// `follow` is called with the names of what has changed.
function onChange(follow) {
  followers.push(follow);
}

function change(changes) {
  Object.assign(view, changes);
  for (const follow of followers) follow(Object.keys(changes));
}

function pictureOf(quantity, latent) {
  return data.pictures.find((p) => p.quantity === quantity && p.latent === latent);
}

// Of a latent, a group or, if null, all latents.
function nameOf(latent) {
  return latent === null ? "all" : typeof latent === "number" ? `z${latent}` : latent;
}

async function load(picture) {
  if (!picture.codes) {
    const figure = document.querySelector(`img[data-map="${picture.title}"]`);
    picture.values = valuesOf(picture);
    picture.codes = await codesOf(picture.picture ?? figure.src);
  }
  return picture;
}

async function choose(picture) {
  change({ picture: await load(picture) });
}

// Another map of the same quantity, or the same latent's of another quantity.
function chooseLatent(step) {
  const same = data.pictures.filter((p) => p.quantity === view.picture.quantity);
  return choose(same[(same.indexOf(view.picture) + step + same.length) % same.length]);
}

function chooseQuantity(quantity) {
  const first = data.pictures.find((p) => p.quantity === quantity);
  return choose(pictureOf(quantity, view.picture.latent) ?? first);
}

function valueAt(picture, [row, column]) {
  return picture.values[picture.codes[row * data.shape[1] + column]];
}

// The centre of a window, in the page's units.
function centreOf(window) {
  return window.map((n, axis) => data.origin[axis] + n * data.spacing[axis]);
}

function sizedAs(length) {
  return Number(length.toPrecision(5));
}

// Shares of the frame: x and y of a window's centre; the window at x and y, null where there is none.
function shareOf([row, column]) {
  const [left, top, width, height] = data.maps;
  const [rows, columns] = data.shape;
  return [
    (left + ((column + 0.5) / columns) * width - data.frame[0]) / data.frame[2],
    (top + ((row + 0.5) / rows) * height - data.frame[1]) / data.frame[3],
  ];
}

function windowAt(x, y) {
  const [left, top, width, height] = data.maps;
  const [rows, columns] = data.shape;
  const column = Math.floor(((data.frame[0] + x * data.frame[2] - left) / width) * columns);
  const row = Math.floor(((data.frame[1] + y * data.frame[3] - top) / height) * rows);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}

function sharesUnder(event, panel) {
  const box = panel.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

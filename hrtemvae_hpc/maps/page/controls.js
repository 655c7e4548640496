// Buttons, lists and keys, and the start of the page.

const SCALES = ["linear", "root", "log"];

function option(value, text) {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

function fillLists() {
  const names = Object.keys(quantities).filter((name) => data.pictures.some((p) => p.quantity === name));
  element("quantity").append(...names.map((name) => option(name, quantities[name].title)));
}

onChange((what) => {
  if (what.includes("picture")) {
    const same = data.pictures.filter((p) => p.quantity === view.picture.quantity);
    element("quantity").value = view.picture.quantity;
    element("latent").replaceChildren(...same.map((p) => option(p.latent ?? "", nameOf(p.latent))));
    element("latent").value = view.picture.latent ?? "";
    element("scale").disabled = !quantities[view.picture.quantity].scales;
    for (const id of ["latent", "previous", "next"]) element(id).disabled = same.length < 2;
  }
  for (const name of ["opacity", "scale", "level", "frame"]) if (what.includes(name)) element(name).value = view[name];
  if (what.includes("shared")) element("shared").value = view.shared ? "1" : "";
  if (what.includes("contour")) element("contour").checked = view.contour;
  if (what.includes("frame")) element("frame-label").textContent = frames[view.frame].alt;
});

function connect() {
  const on = (id, event, act) => element(id).addEventListener(event, (e) => act(e.target));
  on("quantity", "change", (list) => chooseQuantity(list.value));
  on("latent", "change", (list) => choose(data.pictures.find((p) => p.quantity === view.picture.quantity && String(p.latent ?? "") === list.value)));
  on("previous", "click", () => chooseLatent(-1));
  on("next", "click", () => chooseLatent(1));
  for (const name of ["opacity", "level", "frame"]) on(name, "input", (slider) => change({ [name]: Number(slider.value) }));
  for (const name of ["scale", "drag"]) on(name, "change", (list) => change({ [name]: list.value }));
  on("shared", "change", (list) => change({ shared: list.value === "1" }));
  on("contour", "change", (box) => change({ contour: box.checked }));
  on("clear", "click", () => change({ pins: [], outline: [] }));
  on("save-picture", "click", savePicture);
  on("save-table", "click", saveTable);
  on("save-series", "click", saveSeries);
  for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", () => copy(button));
  document.addEventListener("keydown", press);
  followPointer();
}

function moveCursor(down, right) {
  const [rows, columns] = data.shape;
  const [row, column] = view.cursor ?? [rows >> 1, columns >> 1];
  change({ cursor: [Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(column + right, 0), columns - 1)] });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const within = (name, step, first, last) => change({ [name]: Math.min(Math.max(view[name] + step, first), last) });
  const names = [...element("quantity").options].map((o) => o.value);
  const keys = {
    "[": () => chooseLatent(-1),
    "]": () => chooseLatent(1),
    q: () => chooseQuantity(names[(names.indexOf(view.picture.quantity) + 1) % names.length]),
    ",": () => within("frame", -1, 0, frames.length - 1),
    ".": () => within("frame", 1, 0, frames.length - 1),
    "-": () => within("opacity", -0.1, 0, 1),
    "+": () => within("opacity", 0.1, 0, 1),
    s: () => change({ scale: SCALES[(SCALES.indexOf(view.scale) + 1) % SCALES.length] }),
    r: () => change({ shared: !view.shared }),
    c: () => change({ contour: !view.contour }),
    d: switchTheme,
    Escape: () => change({ pins: [], outline: [] }),
  };
  if (document.activeElement === stage) {
    Object.assign(keys, {
      ArrowUp: () => moveCursor(-1, 0),
      ArrowDown: () => moveCursor(1, 0),
      ArrowLeft: () => moveCursor(0, -1),
      ArrowRight: () => moveCursor(0, 1),
      Enter: () => view.cursor && pin(view.cursor),
    });
  }
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (darkSystem.matches ? "dark" : "light")) === "dark";

function showTheme() {
  element("theme").textContent = isDark() ? "Light" : "Dark";
  change({ theme: isDark() });
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
}

// Until all is ready, or if this browser can't read the maps, the page stays as it is without scripts.
async function begin() {
  element("theme").addEventListener("click", switchTheme);
  darkSystem.addEventListener("change", showTheme);
  if (data.curves) drawFrameCurves(element("curves"));
  if (data.variances.mean.length) drawVariances(element("variances"));
  if (element("viewer")) {
    await Promise.all(frames.map((frame) => frame.decode()));
    await prepareFigures();
    fillLists();
    connect();
    await choose(data.pictures[0]);
    const { opacity, scale, shared, contour, level, frame } = view;
    change({ opacity, scale, shared, contour, level, frame });
    new ResizeObserver(fitStage).observe(stage);
  }
  for (const each of document.querySelectorAll(".js")) each.hidden = false;
  showTheme();
  document.documentElement.dataset.ready = "";
}

begin();

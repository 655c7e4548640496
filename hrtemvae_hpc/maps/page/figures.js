// The small figures: drawn on the viewer's scale, with its cursor. When clicked, each shows its map in the viewer, a
// process that of its first latent.

const figures = [...document.querySelectorAll(".figures figure")].map((figure) => {
  const image = figure.querySelector("img.map"), part = figure.querySelector("img.part");
  const picture = image && data.pictures.find((p) => p.title === image.dataset.map);
  const latent = part && Number(part.dataset.latent);
  return {
    figure,
    panel: figure.querySelector(".panel"),
    image,
    picture,
    shows: part ? data.pictures.find((p) => p.quantity === "time_correlated_variance" && p.latent === latent) : picture,
    frame: frames.indexOf(figure.querySelector("img.frame")),
    value: figure.querySelector("figcaption").appendChild(Object.assign(document.createElement("span"), { className: "value" })),
  };
});

async function prepareFigures() {
  for (const panel of [stage, ...figures.map((f) => f.panel)]) {
    const cross = Object.assign(document.createElement("i"), { className: "cross", hidden: true });
    panel.append(cross);
    panel.addEventListener("pointermove", (event) => change({ cursor: windowAt(...sharesUnder(event, panel)) }));
    panel.addEventListener("pointerleave", () => change({ cursor: null }));
  }
  for (const each of figures) {
    each.figure.classList.add("selects");
    each.panel.addEventListener("click", () => {
      if (each.shows) choose(each.shows);
      else if (each.frame >= 0) change({ frame: each.frame });
    });
    if (!each.picture) continue;
    await load(each.picture);
    each.canvas = Object.assign(document.createElement("canvas"), { className: "map" });
    each.canvas.style.cssText = each.image.style.cssText;
    each.image.hidden = true;
    each.image.after(each.canvas);
  }
}

onChange((what) => {
  if (what.includes("scale") || what.includes("shared")) {
    for (const { figure, canvas, picture } of figures.filter((f) => f.picture)) {
      const { range, colours } = looksOf(picture, view.scale, view.shared);
      paint(canvas, picture, colours);
      const labels = figure.querySelectorAll(".colours span");
      labels.forEach((label, i) => (label.textContent = written(range[i])));
    }
  }
  if (what.includes("picture") || what.includes("frame")) {
    for (const { figure, shows, frame } of figures) {
      figure.classList.toggle("chosen", shows ? shows === view.picture : frame === view.frame);
    }
  }
  if (what.includes("cursor")) {
    const [x, y] = view.cursor ? shareOf(view.cursor) : [0, 0];
    for (const cross of document.querySelectorAll(".cross")) {
      cross.hidden = !view.cursor;
      cross.style.setProperty("--x", `${100 * x}%`);
      cross.style.setProperty("--y", `${100 * y}%`);
    }
    for (const { picture, value } of figures) {
      value.textContent = picture && view.cursor ? written(valueAt(picture, view.cursor)) : "";
    }
  }
});

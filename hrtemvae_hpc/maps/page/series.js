// Latents over time at the pinned places, and the mean of a selection. A result keeps them of one window in each cell.

const kept = data.series && {
  ...data.series,
  windows: new Int32Array(bytesOf(data.series.windows).buffer),
  codes: bytesOf(data.series.codes),
};
let seriesChart = null;

// The cell of a map's pixel, which may stand for several windows.
function cellOf(pixel) {
  const [row, column] = pixel.map((n, axis) => Math.min(Math.floor(((n + 0.5) * data.binning[axis]) / kept.side), kept.cells[axis] - 1));
  return row * kept.cells[1] + column;
}

function seriesOf(latent, cell) {
  const which = kept.latents.indexOf(latent);
  const [low, high] = [kept.low[which], kept.high[which]];
  const start = (which * kept.cells[0] * kept.cells[1] + cell) * kept.bins;
  return Array.from(kept.codes.subarray(start, start + kept.bins), (code) => (code === 255 ? null : low + (code / 254) * (high - low)));
}

function meanOf(many) {
  return many[0].map((_, bin) => {
    const known = many.map((series) => series[bin]).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  });
}

// The latent of the map that is shown; of a map of several, the one that changes most.
function latentShown() {
  return [view.picture, ...data.pictures].find((p) => typeof p.latent === "number")?.latent;
}

function drawSeries() {
  seriesChart?.destroy();
  seriesChart = null;
  const latent = latentShown();
  const any = view.pins.length || view.outline.length;
  const there = kept.latents.includes(latent);
  element("series-panel").hidden = !any;
  if (!any) return;
  element("series-note").textContent = there
    ? `Of each square of ${sizedAs(kept.spacing)} ${data.units}, the series of one window is kept: the one that follows time most.`
    : `This page holds no series of z${latent}; hrtemvae trace computes them.`;
  element("save-series").hidden = !there;
  if (!there) return;
  const values = [kept.x];
  const lines = [{ label: kept.label, value: (_, value) => (value === null ? "" : String(sizedAs(value))) }];
  view.pins.forEach((pixel, i) => {
    values.push(seriesOf(latent, cellOf(pixel)));
    lines.push(line(`place ${i + 1}`, "--c1", { stroke: PINS[i % PINS.length], width: 1.6 }));
  });
  const cells = view.outline.length ? [...new Set(windowsWithin(view.outline).map(cellOf))] : [];
  if (cells.length) {
    values.push(meanOf(cells.map((cell) => seriesOf(latent, cell))));
    lines.push(line(`mean of ${cells.length} selected`, "--ink", { dash: [6, 4] }));
  }
  const place = element("series");
  seriesChart = new uPlot(
    {
      width: place.clientWidth, height: 220, series: lines, padding: [8, 10, 0, 0], scales: { x: { time: false } },
      axes: [axis("x", kept.label, { size: 24 }), axis("y", `z${latent}`, { size: 60 })],
      cursor: { drag: { x: false, y: false } },
      hooks: {
        draw: [(chart) => markFrame(chart, kept.frames)],
        ready: [(chart) => chart.over.addEventListener("click", () => showNearest(chart, kept.frames))],
      },
    },
    values, place
  );
}

onChange((what) => {
  if (!kept || !view.picture) return;
  if (what.some((name) => ["picture", "pins", "outline", "size", "theme"].includes(name))) drawSeries();
  else if (what.includes("frame")) seriesChart?.redraw(false, true);
});

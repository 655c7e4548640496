// The curves: drift, brightness, contrast and focus of each frame, and the variance of each latent.

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name);
const charts = [];

function gaps(values) {
  return Array.from(values, (value) => (Number.isFinite(value) ? value : null));
}

function axis(scale, label, more = {}) {
  return {
    scale, label, stroke: colour("--quiet"), labelSize: 18, labelFont: "12px system-ui, sans-serif", font: "11px system-ui, sans-serif",
    grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 }, ...more,
  };
}

function line(label, name, more = {}) {
  return { label, stroke: colour(name), width: 1.3, points: { size: 4 }, value: (_, value) => (value === null ? "" : written(value)), ...more };
}

function draw(place, values, series, axes, options) {
  const chart = new uPlot({ width: place.clientWidth, series, axes, ...options }, values, place);
  new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: options.height })).observe(place);
  charts.push(chart);
}

// A line at the frame that is shown, on a chart whose points are ``of`` these frames or of bins that begin with them.
function markFrame(chart, of) {
  const shown = Number(frames[view.frame].dataset.frame);
  const at = of.findLastIndex((frame) => frame <= shown);
  if (at < 0) return;
  const { ctx, bbox } = chart;
  const x = Math.round(chart.valToPos(chart.data[0][at], "x", true));
  ctx.save();
  ctx.strokeStyle = colour("--accent")();
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

// The embedded frame nearest to the cursor of a chart.
function showNearest(chart, of) {
  if (chart.cursor.idx === null) return;
  const wanted = of[chart.cursor.idx];
  const distances = frames.map((frame) => Math.abs(Number(frame.dataset.frame) - wanted));
  change({ frame: distances.indexOf(Math.min(...distances)) });
}

function drawFrameCurves(place) {
  const curves = data.curves;
  curves.frames = Array.from(floatsOf(curves.frame));
  const x = Array.from(floatsOf(curves.x));
  const of = (name) => gaps(floatsOf(curves[name]));
  const followed = (label, name) => line(label, name, { width: 1, dash: [5, 3], points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) });
  const first = { label: curves.label, value: (_, value) => (value === null ? "" : String(sizedAs(value))) };
  const options = {
    height: 165,
    scales: { x: { time: false } },
    cursor: { sync: { key: "frames" }, drag: { x: false, y: false } },
    hooks: {
      draw: [(chart) => markFrame(chart, curves.frames)],
      ready: [(chart) => chart.over.addEventListener("click", () => showNearest(chart, curves.frames))],
    },
  };
  const bottom = { size: 24 };
  const left = { size: 60 };
  const right = { side: 1, size: 60, grid: { show: false } };
  const drift = [x, of("dy"), of("dx")];
  const series = [first, line("down", "--c1"), line("right", "--c2")];
  if (curves.followed) {
    drift.push(of("applied_dy"), of("applied_dx"));
    series.push(followed("down, followed", "--c1"), followed("right, followed", "--c2"));
  }
  const padding = [8, 78, 0, 0];
  draw(place, drift, series, [axis("x", undefined, bottom), axis("y", "drift / px", left)], { ...options, padding });
  draw(
    place, [x, of("mean"), of("contrast")],
    [first, line("mean counts", "--c3", { scale: "mean" }), line("contrast", "--c4", { scale: "contrast" })],
    [axis("x", undefined, bottom), axis("mean", "mean counts", left), axis("contrast", "contrast", right)], { ...options, padding: [8, 0, 0, 0] }
  );
  draw(place, [x, of("focus")], [first, line("focus measure", "--c2")], [axis("x", curves.label, bottom), axis("y", "focus measure", left)], { ...options, height: 185, padding });
}

function drawVariances(place) {
  const { mean, high } = data.variances;
  const positive = (values) => values.map((value) => (value > 0 ? value : null));
  const scale = mean.some((value) => value > 0) ? { distr: 3 } : {};
  draw(
    place, [high.map((_, latent) => latent), positive(high), positive(mean)],
    [{ label: "latent", value: (_, value) => (value === null ? "" : `z${value}`) }, line("99th percentile of the windows", "--c1"), line("mean over the windows", "--c2")],
    [axis("x", "latent variable", { size: 24 }), axis("y", "variance over time", { size: 70, values: (_, splits) => splits.map((value) => (value === null ? "" : written(value))) })],
    { height: 240, padding: [8, 10, 0, 0], scales: { x: { time: false }, y: scale }, cursor: { drag: { x: false, y: false } } }
  );
}

onChange((what) => {
  if (what.includes("frame") || what.includes("theme")) for (const chart of charts) chart.redraw(false, true);
});

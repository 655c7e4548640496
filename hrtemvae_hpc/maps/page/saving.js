// What is shown as files, and commands for the clipboard.

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${data.name}-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveLines(lines, name) {
  save(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }), name);
}

function nameShown() {
  return view.picture.quantity + (view.picture.latent === null ? "" : `-${nameOf(view.picture.latent)}`);
}

// The viewer with its title, colours and scale bar.
function savePicture() {
  const picture = element("picture");
  const unit = picture.width / stage.clientWidth;
  const [edge, above, below] = [10 * unit, 30 * unit, 34 * unit];
  const canvas = document.createElement("canvas");
  canvas.width = picture.width + 2 * edge;
  canvas.height = picture.height + above + below;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#808080";
  context.fillRect(edge, above, picture.width, picture.height);
  context.drawImage(picture, edge, above);
  context.drawImage(element("marks"), edge, above);
  context.font = `${13 * unit}px system-ui, sans-serif`;
  context.fillStyle = "#000";
  context.textBaseline = "middle";
  const scale = view.scale === "linear" || element("scale").disabled ? "" : `, ${element("scale").selectedOptions[0].text} scale`;
  context.fillText(`${view.picture.title}${scale}, frame ${frames[view.frame].dataset.frame}`, edge, above / 2);
  const table = quantities[view.picture.quantity].table;
  const [start, width] = [edge + 70 * unit, picture.width - 140 * unit];
  const colours = context.createLinearGradient(start, 0, start + width, 0);
  for (let i = 0; i < 256; i++) colours.addColorStop(i / 255, `rgb(${table.subarray(3 * i, 3 * i + 3).join()})`);
  const middle = above + picture.height + below / 2;
  context.fillText(written(looks.range[0]), edge, middle);
  context.textAlign = "right";
  context.fillText(written(looks.range[1]), canvas.width - edge, middle);
  context.fillStyle = colours;
  context.fillRect(start, middle - 5 * unit, width, 10 * unit);
  const bar = stage.querySelector(".bar");
  if (bar) {
    const foot = above + picture.height - 12 * unit;
    context.font = `${12 * unit}px system-ui, sans-serif`;
    context.textAlign = "left";
    context.fillStyle = "rgb(0 0 0 / .55)";
    context.fillRect(edge + 6 * unit, foot - 22 * unit, Math.max(bar.clientWidth, 45) * unit + 8 * unit, 30 * unit);
    context.fillStyle = "#fff";
    context.fillRect(edge + 10 * unit, foot, bar.clientWidth * unit, 4 * unit);
    context.fillText(bar.textContent, edge + 10 * unit, foot - 9 * unit);
  }
  canvas.toBlob((blob) => save(blob, `${nameShown()}.png`));
}

function saveTable() {
  const [rows, columns] = data.shape;
  const lines = [`y_${data.units},x_${data.units},${view.picture.quantity}`];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = valueAt(view.picture, [row, column]);
      lines.push([...centreOf([row, column]).map(sizedAs), Number.isNaN(value) ? "" : Number(value.toPrecision(4))].join());
    }
  }
  saveLines(lines, `${nameShown()}.csv`);
}

// The series as they are drawn, a column for each place.
function saveSeries() {
  const [along, ...series] = seriesChart.data;
  const columns = [along, ...series.map((values) => values.map((value) => (value === null ? "" : Number(value.toPrecision(5)))))];
  const places = view.pins.map((pixel) => `y ${sizedAs(centreOf(pixel)[0])} x ${sizedAs(centreOf(pixel)[1])} ${data.units}`);
  const heads = seriesChart.series.map((series, i) => places[i - 1] ?? series.label);
  saveLines([heads.join(), ...columns[0].map((_, bin) => columns.map((column) => column[bin]).join())], `series-z${latentShown()}.csv`);
}

// Where a page may not write to the clipboard, the text is marked instead.
async function copy(button) {
  const text = element(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text);
    button.textContent = "Marked: press Ctrl-C";
  }
  setTimeout(() => (button.textContent = "Copy the command"), 2000);
}

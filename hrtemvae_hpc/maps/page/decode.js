// From what the page embeds to numbers.

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function floatsOf(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

// The bytes of a PNG file's pixels, row by row. The files of maps hold one byte per window, and rows without a filter.
async function codesOf(url) {
  const png = bytesOf(url.slice(url.indexOf(",") + 1));
  const numbers = new DataView(png.buffer);
  const [width, height] = [numbers.getUint32(16), numbers.getUint32(20)];
  const packed = [];
  for (let at = 8; at < png.length; ) {
    const length = numbers.getUint32(at);
    if (String.fromCharCode(...png.subarray(at + 4, at + 8)) === "IDAT") packed.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const codes = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const start = row * (width + 1);
    if (rows[start] !== 0) throw new Error("a row of a map is filtered");
    codes.set(rows.subarray(start + 1, start + 1 + width), row * width);
  }
  return codes;
}

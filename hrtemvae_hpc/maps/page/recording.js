// While a movie is recorded, its page is drawn again and again: show each drawing, unless somebody uses the page.
const RELOAD_MS = 5000;
const IDLE_MS = 20000;

if (data.recording) {
  let used = -IDLE_MS;
  const note = () => { used = performance.now(); };
  for (const event of ["pointerdown", "keydown", "wheel"]) addEventListener(event, note, { passive: true });
  setInterval(() => { if (performance.now() - used >= IDLE_MS) location.reload(); }, RELOAD_MS);
}

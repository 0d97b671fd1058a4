// FAME as its descent goes on, and single cells of a feature map: where does a cell really look?
import { make, photoAddress, picture } from "/static/talk.js";
import { field, needsPhoto, panel, slider } from "/static/panel.js";

function growing(context) {
  const steps = slider(20, 300, 60, 20);
  const own = panel("pixels", { title: "Which pixels move the score?", lead: "FAME changes the photo step by step so that the score falls; the pixels that move are the map. See how it grows with its steps.", button: "Let FAME run", fields: [steps.label("Steps")] }, context);
  own.place.prepend(make("div", { className: "toolbar-place" }));
  own.start.addEventListener("click", async () => {
    if (own.start.dataset.runs) return own.stop();
    if (!needsPhoto(context)) return;
    const question = context.asked(), frames = [], place = make("div", { className: "cards two" }, make("article"));
    const input = make("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Steps of FAME" }), words = make("span", {}), play = make("button", { type: "button" }, "Play");
    let timer = 0;
    const show = at => { input.value = at; words.textContent = frames[at].label; place.firstChild.replaceWith(context.card(frames[at], question, { small: true })); };
    const halt = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
    input.addEventListener("input", () => { halt(); show(Number(input.value)); });
    play.addEventListener("click", () => {
      if (timer) return halt();
      let at = 0;
      play.textContent = "Pause";
      show(0);
      timer = setInterval(() => { if (++at >= frames.length || !play.isConnected) halt(); else show(at); }, 500);
    });
    await own.run("grow", { ...question, steps: Number(steps.input.value) }, event => {
      if (event.event !== "frame") return;
      frames.push(event.map);
      input.max = frames.length - 1;
      if (frames.length === 1) own.results.append(make("div", { className: "ask" }, play, make("label", {}, words, input)), place);
    });
    if (frames.length) show(frames.length - 1);
  });
}

function celling(context) {
  const layer = make("select", {}), steps = slider(10, 150, 40, 10);
  const own = panel("pixels", { title: "Where does one cell look?", lead: "A class activation map is enlarged as if each cell saw only the patch under it. Choose a cell and see which pixels really move it.", button: "Show the cells", fields: [field("Layer", layer), steps.label("Steps")] }, context);
  async function fill() {
    const found = await context.layersOf(), same = new Set();
    // One layer of every map size: neighbouring modules of a block have the same cells.
    const rows = [...found.layers].reverse().filter(one => { const size = one.shape.slice(1).join(" × "); const is = one.name === found.default || !same.has(size); same.add(size); return is && one.shape[1] <= 28 && one.shape[1] > 1; });
    layer.replaceChildren(...rows.map(one => { const option = make("option", { value: one.name, selected: one.name === found.default }, `${one.name}, ${one.shape[1]} × ${one.shape[2]} cells`); option.dataset.shape = one.shape.slice(1).join(); return option; }));
  }
  own.start.addEventListener("click", async () => {
    if (own.start.dataset.runs) return own.stop();
    if (!needsPhoto(context)) return;
    if (!layer.value) await fill();
    const question = context.asked(), [rows, columns] = layer.selectedOptions[0].dataset.shape.split(",").map(Number), name = layer.value;
    const grid = make("div", { className: "grid", role: "grid", "aria-label": `Cells of ${name}; arrows move, Enter chooses` }), place = make("div", {}), words = make("p", { className: "note", "aria-live": "polite" }, "Choose a cell.");
    const photo = make("canvas", { role: "img", "aria-label": "What the model saw", width: 392, height: Math.round(392 * rows / columns) });
    grid.style.setProperty("--columns", columns);
    const cellsOf = [];
    for (let row = 0; row < rows; row++) {
      const line = make("div", { role: "row" });
      for (let column = 0; column < columns; column++) {
        const cell = make("button", { type: "button", role: "gridcell", tabIndex: cellsOf.length ? -1 : 0, "aria-label": `row ${row}, column ${column}` });
        cell.addEventListener("click", () => choose(cell, row, column));
        cell.addEventListener("keydown", event => {
          const [dy, dx] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
          const next = cellsOf[Math.min(rows - 1, Math.max(0, row + dy)) * columns + Math.min(columns - 1, Math.max(0, column + dx))];
          if (dx || dy) { event.preventDefault(); cell.tabIndex = -1; next.tabIndex = 0; next.focus(); }
        });
        cellsOf.push(cell);
        line.append(cell);
      }
      grid.append(line);
    }
    own.results.replaceChildren(make("div", { className: "cells" }, make("div", { className: "over" }, photo, grid), make("div", {}, words, place)));
    async function choose(cell, row, column) {
      for (const other of cellsOf) other.classList.toggle("chosen", other === cell);
      words.textContent = `Cell ${row}, ${column} is on its way.`;
      await own.run("cell", { ...question, cell_layer: name, row, column, steps: Number(steps.input.value) }, event => {
        if (event.event !== "cell") return;
        crop(event.map.box);
        place.replaceChildren(context.card(event.map, question, { small: true }));
        words.textContent = event.dead ? "This cell is dead: nothing moves it." : `${(100 * event.inside).toFixed(0)} % of what moves this cell lies on the patch under it; the whole spreads ${event.radius.toFixed(0)} pixels around a centre that is ${event.offset.toFixed(0)} pixels from the patch’s.`;
      }, { keep: true });
    }
    async function crop(box) {
      const image = await picture(photoAddress(question.photo)), [l, t, r, b] = box, { naturalWidth: w, naturalHeight: h } = image;
      photo.getContext("2d").drawImage(image, l * w, t * h, (r - l) * w, (b - t) * h, 0, 0, photo.width, photo.height);
    }
    cellsOf[Math.floor(rows / 2) * columns + Math.floor(columns / 2)].click();
  });
  return () => { if (!layer.options.length) fill().catch(context.trouble); };
}

export function openPixels(context) {
  growing(context);
  return celling(context);
}

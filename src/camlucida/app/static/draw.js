// A map over its photo, as the library draws it: grey photo, the map's colours on the part that the model saw.
import { make, picture, photoAddress, values } from "/static/talk.js";

const LONGEST = 560; // pixels of a drawing's longer side
const all = new Set();
export const look = { opacity: 0.6, threshold: 0, palette: "", view: "photo", zoom: 1, x: 0.5, y: 0.5 };
let palettes = {}, signedPalette = "";

export function setPalettes(found, signed) {
  signedPalette = signed;
  for (const [name, hex] of Object.entries(found)) palettes[name] = Uint8Array.from(hex.match(/../g), pair => parseInt(pair, 16));
}
export const paletteOf = signed => palettes[signed ? (/PuOr|coolwarm/.test(look.palette) ? look.palette : signedPalette) : look.palette];

let waiting = false;
export function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; for (const one of all) one.isConnected ? one.drawing.draw() : all.delete(one); });
}
export function zoomTo(factor, x = look.x, y = look.y) {
  look.zoom = Math.min(8, Math.max(1, factor));
  const half = 0.5 / look.zoom;
  look.x = Math.min(1 - half, Math.max(half, x));
  look.y = Math.min(1 - half, Math.max(half, y));
  for (const one of all) one.drawing.place();
}
function probeAll(at) { for (const one of all) one.drawing.probe(at); }

// Values of a map at the pixels of a drawing, bilinear, with cells' centres where they are.
function enlarged(map, rows, columns, width, height) {
  const out = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const sy = Math.min(rows - 1, Math.max(0, (y + 0.5) * rows / height - 0.5)), y0 = Math.floor(sy), y1 = Math.min(rows - 1, y0 + 1), fy = sy - y0;
    for (let x = 0; x < width; x++) {
      const sx = Math.min(columns - 1, Math.max(0, (x + 0.5) * columns / width - 0.5)), x0 = Math.floor(sx), x1 = Math.min(columns - 1, x0 + 1), fx = sx - x0;
      const top = map[y0 * columns + x0] * (1 - fx) + map[y0 * columns + x1] * fx;
      const low = map[y1 * columns + x0] * (1 - fx) + map[y1 * columns + x1] * fx;
      out[y * width + x] = top * (1 - fy) + low * fy;
    }
  }
  return out;
}

export class Drawing {
  // `answer`: what the server told of a map; `photo`: key of its photo.
  constructor(answer, photo, tell = () => {}) {
    this.answer = answer;
    this.photo = photo;
    this.tell = tell;
    this.canvas = make("canvas", { role: "img", tabIndex: 0, width: 8, height: 8, "aria-label": `${answer.label}. ${answer.described}` });
    this.mark = make("span", { className: "cross", hidden: true });
    this.element = make("div", { className: "map" }, this.canvas, this.mark);
    this.element.drawing = this;
    all.add(this.element);
    this.load();
    this.listen();
  }
  async load() {
    const [image, map, mask] = await Promise.all([
      picture(photoAddress(this.photo)), values(this.answer.key), this.answer.mask ? values(this.answer.mask) : null]);
    Object.assign(this, { image, map, mask });
    this.fit();
    this.draw();
  }
  fit() {
    const seen = look.view === "seen", [l, t, r, b] = this.answer.box, { naturalWidth: w, naturalHeight: h } = this.image;
    // The part of the photo that is drawn, and where the map lies on it, both as shares.
    const part = seen ? [l, t, r, b] : [0, 0, 1, 1], pw = (part[2] - part[0]) * w, ph = (part[3] - part[1]) * h;
    const factor = LONGEST / Math.max(pw, ph), width = Math.max(1, Math.round(pw * factor)), height = Math.max(1, Math.round(ph * factor));
    this.part = part;
    Object.assign(this.canvas, { width, height });
    const draw = this.canvas.getContext("2d", { willReadFrequently: true });
    draw.drawImage(this.image, -part[0] * w * factor, -part[1] * h * factor, w * factor, h * factor);
    const pixels = draw.getImageData(0, 0, width, height).data;
    this.grey = new Float32Array(width * height);
    for (let i = 0; i < this.grey.length; i++) this.grey[i] = 0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
    const x = v => Math.round((v - part[0]) / (part[2] - part[0]) * width), y = v => Math.round((v - part[1]) / (part[3] - part[1]) * height);
    this.at = [x(l), y(t), Math.max(x(r), x(l) + 1), Math.max(y(b), y(t) + 1)];
    const [rows, columns] = this.answer.size;
    this.large = enlarged(this.map, rows, columns, this.at[2] - this.at[0], this.at[3] - this.at[1]);
    this.fitted = look.view;
  }
  draw() {
    if (!this.image) return;
    if (this.fitted !== look.view) this.fit();
    const { width, height } = this.canvas, [left, top, right, bottom] = this.at, { signed, largest } = this.answer;
    const colours = paletteOf(signed), data = new ImageData(width, height), out = data.data, own = right - left, scale = largest || 1;
    for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) {
      const grey = this.grey[i], inside = x >= left && x < right && y >= top && y < bottom;
      let r = grey * (inside ? 1 : 0.25), g = r, b = r;
      if (inside) {
        const value = this.large[(y - top) * own + x - left] / scale;
        if (Math.abs(value) >= look.threshold) {
          const place = 3 * Math.min(255, Math.max(0, Math.round(255 * (signed ? value / 2 + 0.5 : value)))), a = look.opacity;
          r = (1 - a) * grey + a * colours[place]; g = (1 - a) * grey + a * colours[place + 1]; b = (1 - a) * grey + a * colours[place + 2];
        }
      }
      out[4 * i] = r; out[4 * i + 1] = g; out[4 * i + 2] = b; out[4 * i + 3] = 255;
    }
    const draw = this.canvas.getContext("2d");
    draw.putImageData(data, 0, 0);
    const shown = (v, i) => (v - this.part[i % 2]) / (this.part[i % 2 + 2] - this.part[i % 2]) * (i % 2 ? height : width);
    for (const box of this.answer.boxes ?? []) {
      const [l, t, r, b] = box.map(shown);
      for (const [colour, lineWidth] of [["#000", 4], ["#fff", 1.6]]) { Object.assign(draw, { strokeStyle: colour, lineWidth }); draw.strokeRect(l, t, r - l, b - t); }
    }
    if (this.region) { draw.strokeStyle = "#fff"; draw.lineWidth = 2; draw.setLineDash([6, 4]); draw.strokeRect(...this.region); draw.setLineDash([]); }
    this.canvas.setAttribute("aria-label", `${this.answer.label}: ${this.answer.explained}. ${this.answer.described}`);
    this.place();
    this.measure();
  }
  // Share of what the model saw that is above the threshold, and its overlap with the object, at the map's own pixels.
  measure() {
    const { largest } = this.answer, cut = Math.fround(look.threshold * (largest || 1));
    let above = 0, both = 0, either = 0;
    for (let i = 0; i < this.map.length; i++) {
      const is = Math.abs(this.map[i]) >= cut, object = this.mask !== null && this.mask[i] > 0;
      above += is; both += is && object; either += is || object;
    }
    this.tell({ area: above / this.map.length, iou: this.mask ? both / Math.max(1, either) : null });
  }
  place() {
    const { zoom, x, y } = look;
    this.canvas.style.transform = zoom === 1 ? "" : `translate(${(0.5 - x * zoom) * 100}%, ${(0.5 - y * zoom) * 100}%) scale(${zoom})`;
    this.element.classList.toggle("zoomed", zoom > 1);
  }
  // Where a share (x, y) of the drawing lies on the map: its row and column, or null where the model did not look.
  cell(x, y) {
    if (!this.at) return null;
    const [l, t, r, b] = this.at, px = x * this.canvas.width, py = y * this.canvas.height, [rows, columns] = this.answer.size;
    if (px < l || px >= r || py < t || py >= b) return null;
    return [Math.min(rows - 1, Math.floor((py - t) / (b - t) * rows)), Math.min(columns - 1, Math.floor((px - l) / (r - l) * columns))];
  }
  probe(at) {
    this.mark.hidden = !at;
    if (!at) return this.tell({ value: null });
    const zoomed = (v, centre) => (v - centre) * look.zoom + 0.5;
    const [x, y] = at, sx = zoomed(x, look.x), sy = zoomed(y, look.y);
    this.mark.hidden = sx < 0 || sx > 1 || sy < 0 || sy > 1;
    this.mark.style.left = `${sx * 100}%`;
    this.mark.style.top = `${sy * 100}%`;
    const cell = this.cell(x, y);
    this.tell({ value: cell ? this.map[cell[0] * this.answer.size[1] + cell[1]] : undefined });
  }
  share(event) {
    const box = this.element.getBoundingClientRect(), back = (v, centre) => (v - 0.5) / look.zoom + centre;
    return [back((event.clientX - box.left) / box.width, look.x), back((event.clientY - box.top) / box.height, look.y)];
  }
  listen() {
    const { element, canvas } = this;
    let grabbed = null, at = [0.5, 0.5];
    element.addEventListener("pointermove", event => {
      if (this.walling) return;
      if (grabbed && event.buttons) {
        const box = element.getBoundingClientRect();
        zoomTo(look.zoom, grabbed.x - (event.clientX - grabbed.cx) / box.width / look.zoom, grabbed.y - (event.clientY - grabbed.cy) / box.height / look.zoom);
      } else probeAll(at = this.share(event));
    });
    element.addEventListener("pointerdown", event => {
      if (this.walling || look.zoom === 1) return;
      grabbed = { cx: event.clientX, cy: event.clientY, x: look.x, y: look.y };
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointerup", () => { grabbed = null; });
    element.addEventListener("pointerleave", () => { if (!grabbed && document.activeElement !== canvas) probeAll(null); });
    element.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const [x, y] = this.share(event), before = look.zoom, after = Math.min(8, Math.max(1, before * Math.exp(-event.deltaY / 300)));
      zoomTo(after, x + (look.x - x) * before / after, y + (look.y - y) * before / after);
    }, { passive: false });
    element.addEventListener("dblclick", event => { const [x, y] = this.share(event); zoomTo(look.zoom > 1 ? 1 : 3, x, y); });
    canvas.addEventListener("focus", () => probeAll(at));
    canvas.addEventListener("blur", () => probeAll(null));
    canvas.addEventListener("keydown", event => {
      const step = 0.02 / look.zoom * (event.shiftKey ? 5 : 1);
      const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
      if (dx || dy) {
        at = [Math.min(1, Math.max(0, at[0] + dx)), Math.min(1, Math.max(0, at[1] + dy))];
        if (look.zoom > 1) zoomTo(look.zoom, ...at);
        probeAll(at);
      } else if (event.key === "+" || event.key === "=") zoomTo(look.zoom * 1.5, ...at);
      else if (event.key === "-") zoomTo(look.zoom / 1.5, ...at);
      else if (event.key === "0") zoomTo(1);
      else return;
      event.preventDefault();
    });
  }
  // Lets a rectangle be drawn; its rows and columns in pixels of the map, ends exclusive.
  wall() {
    this.walling = true;
    this.element.classList.add("walling");
    return new Promise(resolve => {
      let start = null;
      const down = event => { start = this.share(event); this.element.setPointerCapture(event.pointerId); event.preventDefault(); };
      const rectangle = event => {
        const end = this.share(event), { width, height } = this.canvas;
        const [x0, x1] = [start[0], end[0]].sort((a, b) => a - b), [y0, y1] = [start[1], end[1]].sort((a, b) => a - b);
        return [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
      };
      const move = event => { if (start) { this.region = rectangle(event); this.draw(); } };
      const up = event => {
        if (!start) return;
        const [x, y, w, h] = rectangle(event), [l, t, r, b] = this.at, [rows, columns] = this.answer.size;
        const place = (v, from, to, count) => Math.min(count, Math.max(0, Math.round((v - from) / (to - from) * count)));
        this.endWall();
        resolve({ top: place(y, t, b, rows), bottom: place(y + h, t, b, rows), left: place(x, l, r, columns), right: place(x + w, l, r, columns) });
      };
      this.stopWall = () => { this.endWall(); resolve(null); };
      this.handlers = { pointerdown: down, pointermove: move, pointerup: up };
      for (const [name, handler] of Object.entries(this.handlers)) this.element.addEventListener(name, handler);
    });
  }
  endWall() {
    for (const [name, handler] of Object.entries(this.handlers ?? {})) this.element.removeEventListener(name, handler);
    this.walling = false;
    this.element.classList.remove("walling");
  }
}

// "Check this map": quick checks of one map on this photo, their curve as it grows, and a wall.
import { make, work } from "/static/talk.js";

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Curves of a probability while a part is deleted or put back, drawn as far as they are known.
class Curves {
  constructor() {
    this.lines = new Map();
    this.plot = svg("svg", { viewBox: "0 0 320 170", class: "curve", role: "img", "aria-label": "Curves of the probability, growing" });
    this.words = make("p", { className: "note" });
    this.element = make("figure", { className: "curves" }, this.plot, make("figcaption", {}, this.words));
    const text = (x, y, words, anchor = "start") => svg("text", { x, y, "text-anchor": anchor }, words);
    this.plot.append(svg("path", { d: "M34 10V140H312", class: "axis" }), text(30, 16, "1", "end"), text(30, 143, "0", "end"), text(34, 160, "nothing"), text(312, 160, "all pixels", "end"), text(40, 10, "probability"));
  }
  add({ name, title, at, heights }) {
    if (!this.lines.has(name)) {
      const line = svg("path", { class: `line ${name}`, fill: "none" });
      this.plot.append(line);
      this.lines.set(name, { line, title });
    }
    const points = at.map((x, i) => heights[i] === null ? null : `${34 + 278 * x} ${140 - 130 * heights[i]}`).filter(Boolean);
    const one = this.lines.get(name);
    one.line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    this.words.replaceChildren(...[...this.lines.entries()].map(([key, { title }]) => make("span", { className: `key ${key}` }, title)));
  }
}

export function checksOf(answer, asked, drawing, context) {
  const results = make("div", { className: "checks", "aria-live": "polite" });
  const bar = make("progress", { max: 1, hidden: true, "aria-label": "How far the checks are" });
  const start = make("button", { type: "button" }, "Check this map"), wall = make("button", { type: "button", className: "quiet" }, "Draw a wall");
  const side = make("select", { "aria-label": "Hide a quarter of the picture behind a wall" },
    ...[["", "Hide a side"], ["top", "the upper quarter"], ["bottom", "the lower quarter"], ["left", "the left quarter"], ["right", "the right quarter"]].map(([value, words]) => make("option", { value }, words)));
  let running = null;
  const row = ({ outcome, title, words }) => make("div", { className: `check ${outcome.replaceAll(" ", "-")}` },
    make("p", {}, make("strong", {}, make("span", { "aria-hidden": "true" }, `${(context.facts.outcomes[outcome] ?? "·")[0]} `), title), make("span", { className: "unseen" }, `: ${(context.facts.outcomes[outcome] ?? ["", outcome])[1]}`)), make("p", { className: "note" }, words));
  async function run(kind, more, into) {
    running?.abort();
    const own = running = new AbortController();
    bar.hidden = false; bar.removeAttribute("value");
    start.textContent = "Stop";
    let curves = null;
    try {
      await work(kind, { ...asked, methods: [answer.method], ...more }, event => {
        if (event.event === "progress") { bar.value = event.share; context.say(event.what); }
        else if (event.event === "check") into.append(row(event));
        else if (event.event === "curve") { if (!curves) into.append((curves = new Curves()).element); curves.add(event); }
        else if (event.event === "map") into.append(context.card(event, { ...asked, against: asked.against }, { small: true }));
      }, own.signal);
    } catch (error) { if (error.name !== "AbortError") into.append(make("p", { className: "trouble" }, error.message)); }
    const found = [...into.querySelectorAll(".check")], count = kind => found.filter(one => one.classList.contains(kind)).length;
    if (kind === "check" && !own.signal.aborted && found.length) into.prepend(make("p", {}, make("strong", {}, Object.entries(context.facts.outcomes).map(([kind, [, said]]) => [count(kind.replaceAll(" ", "-")), said]).filter(([number]) => number).map(([number, said]) => `${number} ${said}`).join(", ") + "."), " The sanity checks are of the predicted class, on this photo alone."));
    if (running === own) { running = null; bar.hidden = true; start.textContent = "Check again"; context.say(""); }
  }
  start.addEventListener("click", () => {
    if (running) return running.abort();
    results.replaceChildren();
    run("check", {}, results);
  });
  const behind = region => { const into = make("div", {}); results.append(into); run("wall", { region }, into); };
  wall.addEventListener("click", async () => {
    if (drawing.walling) return drawing.stopWall();
    wall.textContent = "Cancel the wall";
    context.say("Draw a rectangle on the map; the model will not see what is in it.");
    const region = await drawing.wall();
    wall.textContent = "Draw a wall";
    context.say("");
    if (region) behind(region);
  });
  side.addEventListener("change", () => {
    const [rows, columns] = answer.size, all = { top: 0, left: 0, bottom: rows, right: columns };
    const quarter = { top: { bottom: Math.round(rows / 4) }, bottom: { top: rows - Math.round(rows / 4) }, left: { right: Math.round(columns / 4) }, right: { left: columns - Math.round(columns / 4) } }[side.value];
    if (quarter) behind({ ...all, ...quarter });
    side.value = "";
  });
  return make("div", { className: "checking" }, make("p", { className: "row" }, start, wall, side), bar, results);
}

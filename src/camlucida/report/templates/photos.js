"use strict";
const { labels, rows, agree, true: known } = JSON.parse(document.getElementById("data").textContent);
const place = document.getElementById("photos"), each = 50;
const state = { key: null, up: true, method: 0, only: "all", words: "", page: 0 };
const of = row => row[7].find(m => m[0] === labels[state.method]) ?? [];
const heads = [
  ["photo and maps", row => row[0], true],
  ...(known ? [["true class", row => row[1], true]] : []),
  ["said", row => row[2], true],
  ["confidence", row => row[3]],
  ["lead over next", row => row[4]],
  ...(known ? [["mistake", row => row[5] === null ? null : +row[5]]] : []),
  ...(agree ? [["methods agree", row => row[6]]] : []),
  ["explained", row => of(row)[1] ?? "", true],
  ["value", row => of(row)[2]],
  ["lowest on map", row => of(row)[3]],
  ["highest on map", row => of(row)[4]],
  ["dead channels", row => of(row)[5]],
  ["remarks", row => (of(row)[6] ?? []).length],
];
function make(tag, text, parent, more = {}) {
  const made = Object.assign(document.createElement(tag), more);
  if (text !== undefined && text !== null) made.textContent = text;
  parent?.append(made);
  return made;
}
function choose(parent, name, options, change) {
  const label = make("label", name + " ", parent), list = make("select", null, label);
  options.forEach(([value, text]) => make("option", text, list, { value }));
  list.addEventListener("change", () => { change(list.value); state.page = 0; draw(); });
}
function draw() {
  const words = state.words.toLowerCase();
  let found = rows.filter(row =>
    (state.only === "all" || (state.only === "wrong" ? row[5] === true : state.only === "right" ? row[5] === false : row[7].some(m => m[6].length)))
    && (!words || (row[0] + " " + row[1] + " " + row[2]).toLowerCase().includes(words)));
  if (state.key !== null) {
    const value = heads[state.key][1];
    found = [...found].sort((a, b) => {
      const x = value(a), y = value(b), none = v => v === null || v === undefined || v === "";
      if (none(x) || none(y)) return none(x) - none(y); // what has no number stays last
      return (x < y ? -1 : x > y ? 1 : 0) * (state.up ? 1 : -1);
    });
  }
  const last = Math.max(0, Math.ceil(found.length / each) - 1);
  state.page = Math.min(state.page, last);
  table.replaceChildren();
  const head = make("tr", null, make("thead", null, table));
  heads.forEach(([name, , text], at) => {
    const cell = make("th", null, head, { scope: "col", className: text ? "text" : "" }), button = make("button", name, cell, { type: "button" });
    if (state.key === at) cell.setAttribute("aria-sort", state.up ? "ascending" : "descending");
    button.addEventListener("click", () => {
      state.up = state.key === at ? !state.up : Boolean(text) || name === "confidence" || name === "methods agree" || name === "lead over next";
      state.key = at; state.page = 0; draw();
    });
  });
  const body = make("tbody", null, table);
  for (const row of found.slice(state.page * each, (state.page + 1) * each)) {
    const line = make("tr", null, body, { className: row[5] === true ? "wrong" : "" });
    heads.forEach(([name, value, text]) => {
      const number = value(row), cell = make("td", null, line, { className: (text ? "text" : "") + (name === "said" ? " said" : "") });
      if (name === "photo and maps") {
        cell.className = "strip";
        if (row[8]) make("img", null, cell, { src: row[8], alt: row[0] + " and its maps: " + labels.join(", "), title: ["photo", ...labels].join(" | "), loading: "lazy" });
        make("small", row[0], cell);
      } else if (name === "remarks") (of(row)[6] ?? []).forEach(one => make("small", one, cell)), cell.classList.add("text", "remarks");
      else if (name === "mistake") cell.textContent = number === null ? "" : number ? "yes" : "no";
      else cell.textContent = text ? number : number === null || number === undefined ? "" : name === "confidence" || name === "dead channels" ? (100 * number).toFixed(1) + " %" : number;
    });
  }
  pages.replaceChildren();
  const step = (text, by, off) => make("button", text, pages, { type: "button", disabled: off }).addEventListener("click", () => { state.page += by; draw(); place.scrollIntoView(); });
  step("previous", -1, state.page === 0);
  make("span", ` ${found.length.toLocaleString("en")} photos, page ${state.page + 1} of ${last + 1} `, pages);
  step("next", 1, state.page === last);
}
place.replaceChildren();
const bar = make("div", null, place, { className: "bar" });
choose(bar, "Show", [["all", "all photos"], ...(known ? [["wrong", "mistakes"], ["right", "right ones"]] : []), ["marked", "maps with remarks"]], value => { state.only = value; });
if (labels.length > 1) choose(bar, "Numbers of", labels.map((name, at) => [at, name]), value => { state.method = +value; });
make("input", null, make("label", "Find ", bar), { type: "search", placeholder: "name or class" }).addEventListener("input", event => { state.words = event.target.value; state.page = 0; draw(); });
make("small", "A click on a heading sorts. " + (labels.length > 1 ? "Maps from left to right: " + labels.join(", ") + "." : ""), bar);
const table = make("table", null, make("div", null, place, { className: "scroll" })), pages = make("p", null, place, { className: "pages" });
draw();

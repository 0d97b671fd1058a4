// A data set, sorted by confidence or mistake, in its four cases; a photo chosen is asked about.
import { make, photoAddress } from "/static/talk.js";
import { field, panel, slider } from "/static/panel.js";

const SORTS = { mistakes: ["Surest mistakes first", (a, b) => (a.right === false ? 0 : 1) - (b.right === false ? 0 : 1) || b.probability - a.probability], unsure: ["Least confident first", (a, b) => a.probability - b.probability], sure: ["Most confident first", (a, b) => b.probability - a.probability], name: ["By name", (a, b) => a.name < b.name ? -1 : 1] };

export function openData(context) {
  const sort = make("select", {}, ...Object.entries(SORTS).map(([value, [words]]) => make("option", { value }, words))), which = make("select", {}, make("option", { value: "" }, "all cases")), count = slider(20, 500, 100, 20);
  const own = panel("data", { title: "Which photos does the model get wrong?", lead: "The model looks at the photos of the data set, spread evenly; choose one to ask about it.", button: "Look through the data set", fields: [count.label("Photos at most"), field("Order", sort), field("Show", which)] }, context);
  const neighbours = make("button", { type: "button", className: "quiet", hidden: true }, "Nearest training photos of the photo in question");
  const rows = [], gallery = make("div", { className: "gallery" }), said = make("p", { className: "note" }), near = make("div", {});
  const tile = row => make("button", { type: "button", className: row.right === false ? "tile wrong" : "tile", onclick: () => context.choose({ key: row.key, name: row.name, label: row.label }) },
    make("img", { src: `${photoAddress(row.key)}?small=1`, alt: "", loading: "lazy" }), make("span", { className: "name" }, `${row.predicted} ${(100 * row.probability).toFixed(0)} %`),
    make("span", { className: "note" }, row.right === null ? row.name : row.right ? "✓ right" : `✗ it is ${row.label}`));
  function draw() {
    const shown = rows.filter(row => !which.value || row.case === which.value).sort(SORTS[sort.value][1]);
    gallery.replaceChildren(...shown.map(tile));
    const known = rows.filter(row => row.right !== null), right = known.filter(row => row.right).length;
    const cases = [...new Set(known.map(row => row.case))].sort();
    if (which.options.length !== cases.length + 1) { const kept = which.value; which.replaceChildren(make("option", { value: "" }, "all cases"), ...cases.map(name => make("option", { value: name }, name))); which.value = kept; }
    said.textContent = `${rows.length} photos` + (known.length ? `, ${right} of ${known.length} right. ${cases.map(name => `${name}: ${known.filter(row => row.case === name).length}`).join("; ")}.` : ".");
  }
  sort.addEventListener("change", draw); which.addEventListener("change", draw);
  own.start.addEventListener("click", async () => {
    if (own.start.dataset.runs) return own.stop();
    rows.length = 0;
    const begin = () => own.results.append(said, neighbours, near, gallery);
    let drawn = 0;
    await own.run("rank", { model: context.state.model, count: Number(count.input.value) }, event => {
      if (event.event !== "row") return;
      if (!rows.length) begin();
      rows.push(event);
      if (rows.length - drawn >= 8) { drawn = rows.length; draw(); }
    });
    neighbours.hidden = !context.facts.data?.folder;
    if (rows.length) draw();
  });
  neighbours.addEventListener("click", () => {
    if (!context.state.photo) return context.trouble(new Error("Choose a photo first."));
    own.run("neighbours", context.asked(), event => { if (event.event === "picture") near.replaceChildren(make("img", { className: "wide", src: `/api/pictures/${event.key}`, alt: `The photo beside its nearest training photos, and their maps. ${event.words}` })); }, { keep: true });
  });
  return () => { if (!rows.length && !own.start.dataset.runs) own.start.click(); };
}

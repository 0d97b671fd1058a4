// The page: what is asked, and where the answers go.
import { get, make, photoAddress, upload, work } from "/static/talk.js";
import { look, paletteOf, redraw, setPalettes, zoomTo } from "/static/draw.js";
import { badge, card, gradeFor } from "/static/cards.js";
import { openLayers } from "/static/layers.js";
import { openPixels } from "/static/pixels.js";
import { openData } from "/static/dataset.js";
import { openFaces } from "/static/faces.js";

const $ = id => document.getElementById(id);
const state = { photo: "", model: 0, class: "", against: [], target: "logit", layer: "", methods: ["gradcam", "layercam", "fame:iterations=40"], signed: false, seed: 0 };
const misfits = {}; // by model: why methods do not fit it
let facts = null, layers = null, running = null, answers = [], predictions = [];
const context = { look, methods: [], questions: {}, say, card: (answer, asked, how) => card(answer, asked, context, how) };

// ---- words ---------------------------------------------------------------------------------------
function say(words) { $("status").textContent = words; }
function trouble(error) {
  const words = error?.message ?? "";
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}
const classes = () => facts.models[state.model].classes;
const nameOf = index => classes()?.[index] ?? `class ${index}`;

// ---- state in the address ---------------------------------------------------------------------------
function toAddress() {
  const to = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) for (const one of [value].flat()) if (one !== "" && one !== 0 && one !== false && !(name === "target" && one === "logit")) to.append(name, one);
  if (look.opacity !== 0.6) to.set("opacity", look.opacity);
  if (look.threshold) to.set("threshold", look.threshold);
  if (look.view !== "photo") to.set("view", look.view);
  if (look.palette !== $("palette").options[0]?.value) to.set("palette", look.palette);
  if (tab() !== "maps") to.set("tab", tab());
  return `#${to}`;
}
function fromAddress() {
  const from = new URLSearchParams(location.hash.slice(1)), text = (name, otherwise = "") => from.get(name) ?? otherwise;
  const share = (name, otherwise) => Math.min(1, Math.max(0, Number(text(name, otherwise)) || 0));
  Object.assign(state, { photo: text("photo"), model: Math.min(facts.models.length - 1, Math.max(0, parseInt(text("model", "0")) || 0)), class: text("class"), against: from.getAll("against"), target: text("target", "logit"), layer: text("layer"), signed: text("signed") === "true", seed: parseInt(text("seed", "0")) || 0 });
  if (from.has("methods")) state.methods = from.getAll("methods");
  look.opacity = share("opacity", 0.6); look.threshold = share("threshold", 0); look.view = text("view") === "seen" ? "seen" : "photo";
  const known = [...$("palette").options].map(option => option.value);
  look.palette = known.includes(text("palette")) ? text("palette") : known[0];
  show(text("tab", "maps"));
}
function remember() { history.replaceState(null, "", toAddress()); }

// ---- controls ---------------------------------------------------------------------------------------
function fill() {
  const { of } = facts.models[state.model], heads = facts.models.map((one, number) => ({ ...one, number })).filter(one => one.of === of);
  $("model").value = of;
  $("heads").hidden = heads.length < 2;
  $("head").replaceChildren(...heads.map(one => make("option", { value: one.number }, one.head)));
  $("head").value = state.model;
  $("class").value = state.class === "" ? "" : written(state.class);
  $("against").value = state.against.map(written).join("; ");
  $("target").value = state.target;
  $("signed").checked = state.signed || state.against.length > 0;
  $("signed").disabled = state.against.length > 0;
  $("opacity").value = 100 * look.opacity; $("threshold").value = 100 * look.threshold; $("palette").value = look.palette; $("view").value = look.view;
  $("threshold-value").textContent = look.threshold ? `${Math.round(100 * look.threshold)} %` : "none";
  for (const box of document.querySelectorAll("input[data-method]")) box.checked = state.methods.includes(box.dataset.method);
  $("layer-name").textContent = state.layer || "the methods’ own choice";
}
const written = given => /^\d+$/.test(given) && classes()?.[given] ? classes()[given] : given;
function classList() {
  const names = classes() ?? [], seen = new Map();
  for (const name of names) seen.set(name, (seen.get(name) ?? 0) + 1);
  $("classes").replaceChildren(...names.slice(0, 5000).map((name, index) => make("option", { value: seen.get(name) > 1 ? `${name} (${index})` : name })));
}
// A class as it was typed to its index, where the name is one of the model's.
function classOf(typed) {
  const text = typed.trim(), numbered = text.match(/\((\d+)\)$/);
  if (numbered && classes()?.[numbered[1]]) return numbered[1];
  const place = (classes() ?? []).findIndex(name => name.toLowerCase() === text.toLowerCase());
  return place < 0 ? text : String(place);
}
// Makes a part of the page anew; the keyboard stays on the control that it was on.
function renew(fill) {
  const { method } = document.activeElement?.dataset ?? {}, name = document.activeElement?.getAttribute("aria-label");
  fill();
  if (document.activeElement !== document.body) return;
  const same = [...document.querySelectorAll("input[data-method], #predictions button")].find(one => method ? one.dataset.method === method : name && one.getAttribute("aria-label") === name);
  same?.focus({ preventScroll: true });
}
function methodRow(method) {
  const box = make("input", { type: "checkbox", checked: state.methods.includes(method.text) });
  box.dataset.method = method.text;
  box.addEventListener("change", () => {
    state.methods = box.checked ? [...state.methods, method.text] : state.methods.filter(one => one !== method.text);
    ask();
  });
  const question = state.against.length ? "contrast" : "evidence", grade = gradeFor(method.grade, question, state.model)?.answers[question].grade, misfit = misfits[state.model]?.[method.name];
  return make("label", { className: "method", title: `Needs ${method.needs}. Takes ${method.cost}. ${method.paper}` }, box, make("span", { className: "name" }, method.text, method.slow ? make("span", { className: "note" }, " slower") : null), grade ? badge(grade) : null, make("span", { className: "says" }, misfit ? make("strong", {}, "Does not fit this model: ") : null, misfit ?? method.says));
}
async function fits() {
  const { model } = state;
  if (misfits[model] || !$("others").open) return;
  misfits[model] = {};
  const forget = () => delete misfits[model];
  try { await work("fits", { model }, event => { if (event.event === "misfits") misfits[model] = event.reasons; }); methodLists(); } catch { forget(); }
}
const COMMON = ["gradcam", "gradcam++", "layercam", "hirescam", "eigencam", "saliency", "fame"];
function methodLists() {
  const rank = facts.grades?.order ?? [], question = state.against.length ? "contrast" : "evidence";
  const grade = method => { const at = rank.indexOf(gradeFor(method.grade, question, state.model)?.answers[question].grade); return at < 0 ? 9 : at; };
  const known = facts.methods.map(method => method.text);
  const more = state.methods.filter(text => !known.includes(text)).map(text => ({ ...facts.methods.find(one => one.name === text.split(":")[0]), text })).filter(one => one.name);
  const chosen = facts.methods.filter(method => COMMON.includes(method.name) || state.methods.includes(method.text));
  if (facts.grades) chosen.sort((a, b) => grade(a) - grade(b));
  const others = facts.methods.filter(method => !chosen.includes(method));
  $("graded").textContent = !facts.grades ? "No grades: start the page with --audit FOLDER of “camlucida audit all”." : state.model ? `The audit was of ${facts.grades.facts}; it says nothing of this model.` : `Grades of the last audit: ${facts.grades.facts}. ${facts.grades.warning}`;
  fits();
  const wanted = $("filter").value.trim().toLowerCase();
  renew(() => {
    $("methods").replaceChildren(...[...chosen, ...more].map(methodRow));
    $("all-methods").replaceChildren(...others.filter(method => `${method.text} ${method.says} ${method.paper}`.toLowerCase().includes(wanted)).map(methodRow));
  });
}

// ---- photos ---------------------------------------------------------------------------------------
function choose(photo) {
  Object.assign(state, { photo: photo.key, class: "", against: [] });
  predictions = [];
  $("predictions").replaceChildren();
  thumb(photo);
  show("maps");
  ask();
}
function thumb(photo) {
  $("thumb").src = photoAddress(photo.key);
  $("thumb").alt = `The photo ${photo.name}`;
  $("thumb").hidden = false;
  $("photo-name").textContent = photo.name + (photo.label ? ` (${photo.label})` : "");
}
async function take(file, use = choose) {
  if (!file) return trouble(new Error("No file came with that; drop the photo’s file, or choose it."));
  trouble();
  say(`Reading ${file.name}`);
  try { use(await upload(file)); } catch (error) { say(""); trouble(error); }
}
function sampleButtons(photos) {
  return photos.map(photo => make("button", { type: "button", title: photo.says ?? photo.name, onclick: () => choose({ ...photo, name: photo.name }) },
    make("img", { src: photoAddress(photo.key), alt: photo.says ?? photo.name, loading: "lazy" })));
}

// ---- asking ---------------------------------------------------------------------------------------
const asked = () => ({ ...state, against: [...state.against], methods: [...state.methods] });
async function ask() {
  running?.abort();
  remember(); fill(); methodLists();
  if (!state.photo || tab() !== "maps") return;
  trouble();
  if (!state.methods.length) return say("Choose a method.");
  const own = running = new AbortController(), question = asked();
  $("welcome").hidden = true; $("result").hidden = false; document.body.dataset.asks = "yes";
  answers = [];
  const places = new Map(question.methods.map(method => [method, make("article", { className: "card wait", "aria-label": method }, make("header", {}, make("h3", {}, method)), make("div", { className: "map" }), make("progress", { "aria-label": `${method} is on its way` }))]));
  $("cards").replaceChildren(...places.values());
  say("Looking");
  try {
    await work("explain", question, event => {
      if (own.signal.aborted) return;
      if (event.event === "asked") { $("command").textContent = event.command; $("python").textContent = event.python; }
      else if (event.event === "waiting") say(`${event.before} ${event.before === 1 ? "request comes" : "requests come"} first`);
      else if (event.event === "progress") { const bar = places.get(event.what)?.querySelector("progress"); if (bar) bar.value = event.share; }
      else if (event.event === "skipped") places.get(event.method).replaceChildren(make("header", {}, make("h3", {}, event.method)), make("p", { className: "trouble" }, `Left out: ${event.words}`));
      else if (event.event === "map") arrived(event, question, places);
    }, own.signal);
    if (own === running) { const all = question.methods.length, left = all - answers.length; say(`${left ? `${left} of ${all} methods left out; ` : ""}${answers.length} ${answers.length === 1 ? "map is" : "maps are"} ready.`); }
  } catch (error) {
    if (error.name === "AbortError") return;
    say(""); trouble(error);
    for (const place of places.values()) if (place.classList.contains("wait")) place.remove();
  }
}
function arrived(answer, question, places) {
  const made = card(answer, question, context);
  places.get(answer.method).replaceWith(made);
  places.set(answer.method, made);
  answers.push(answer);
  if (answer.predictions.length) predictions = answer.predictions;
  if (answers.length === 1) sentence(answer, question);
  along();
}
function sentence(answer, question) {
  const own = answer.explains === null || !predictions.length ? "this value" : nameOf(answer.explains), rivals = question.against.map(written);
  $("sentence").textContent = rivals.length ? `Why “${own}” and not “${rivals.join("” or “")}”?` : predictions.length ? `Where is the evidence for “${own}”?` : "What speaks for this value?";
  $("explained").textContent = answer.explained + (answer.signed ? `. Two colours: ${answer.sides[0]}, and ${answer.sides[1]}.` : "");
  $("class").placeholder = question.class === "" ? own : "the predicted class";
  scale(answer);
  const rows = predictions.map(one => {
    const share = make("span", { className: "bar", "aria-hidden": "true" }), why = make("button", { type: "button", className: "quiet", "aria-label": `Why ${one.name}?` }, "why?");
    share.style.width = `${100 * one.probability}%`;
    const not = make("button", { type: "button", className: "quiet", "aria-label": `And not ${one.name}?` }, "and not?");
    const mine = one.index === answer.explains, index = String(one.index), rival = question.against.includes(index);
    why.addEventListener("click", () => { if (mine) return; state.class = index; state.against = state.against.filter(other => other !== index); ask(); });
    not.addEventListener("click", () => { state.against = rival ? state.against.filter(other => other !== index) : [index]; if (state.class === "") state.class = String(answer.explains); ask(); });
    not.disabled = mine;
    why.setAttribute("aria-pressed", mine); not.setAttribute("aria-pressed", rival);
    return make("div", { className: `prediction${mine ? " mine" : ""}${rival ? " rival" : ""}` }, share, make("span", { className: "name" }, one.name), make("span", { className: "share" }, `${(100 * one.probability).toFixed(1)} %`), why, not);
  });
  renew(() => $("predictions").replaceChildren(...rows));
}
function scale(answer) {
  $("scale").replaceChildren(make("span", {}, answer.signed ? answer.sides[0] : "none"), make("canvas", { width: 256, height: 1 }), make("span", {}, answer.signed ? answer.sides[1] : "most, each map on its own scale"));
  $("scale").dataset.signed = answer.signed;
  paint();
}
function paint() {
  const canvas = $("scale").querySelector("canvas");
  if (!canvas) return;
  const colours = paletteOf($("scale").dataset.signed === "true"), data = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) data.data.set([colours[3 * i], colours[3 * i + 1], colours[3 * i + 2], 255], 4 * i);
  canvas.getContext("2d").putImageData(data, 0, 0);
}
function along() {
  const keys = answers.map(answer => `key=${encodeURIComponent(answer.key)}`).join("&");
  for (const kind of ["png", "pdf", "npz", "json"]) $(`take-${kind}`).href = `/api/files/${kind}?${keys}`;
}
function keep() {
  if (!answers.length) return;
  const question = asked(), title = `${$("photo-name").textContent}: ${$("sentence").textContent}`;
  const own = make("section", { className: "keeping", "aria-label": title });
  own.append(make("header", {}, make("h3", {}, title), make("span", { className: "note" }, [facts.models[question.model].name, facts.models[question.model].head].filter(Boolean).join(", ")), make("button", { type: "button", className: "quiet", onclick: () => own.remove() }, "Remove")),
    make("div", { className: "cards" }, ...answers.map(answer => card(answer, question, context, { small: true }))));
  $("kept").prepend(own);
  say("Kept below. Now choose another photo, class, layer or model: zoom and colours go in step.");
}

// ---- tabs -----------------------------------------------------------------------------------------
const tabs = [...document.querySelectorAll("[role=tab]")];
function tab() { return tabs.find(one => one.getAttribute("aria-selected") === "true").id.slice(4); }
const opened = {};
function show(name) {
  if (!tabs.some(one => one.id === `tab-${name}` && !one.hidden)) name = "maps";
  for (const one of tabs) {
    const is = one.id === `tab-${name}`;
    one.setAttribute("aria-selected", is);
    one.tabIndex = is ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !is;
  }
  document.body.dataset.tab = name;
  trouble();
  $(`panel-${name}`).querySelector(".toolbar-place")?.append($("toolbar"));
  opened[name]?.();
}
Object.assign(opened, { layers: openLayers(context), pixels: openPixels(context), data: openData(context), faces: openFaces(context) });
for (const one of tabs) {
  one.addEventListener("click", () => { show(one.id.slice(4)); remember(); if (tab() === "maps" && !answers.length) ask(); });
  one.addEventListener("keydown", event => {
    const seen = tabs.filter(other => !other.hidden), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { const next = seen[(seen.indexOf(one) + step + seen.length) % seen.length]; next.focus(); next.click(); }
  });
}

// ---- start ----------------------------------------------------------------------------------------
async function loadLayers() {
  layers = await get(`/api/layers/${state.model}`);
  $("layer").max = layers.layers.length;
  const at = layers.layers.findIndex(one => one.name === state.layer);
  $("layer").value = at + 1;
}
function listen() {
  $("file").addEventListener("change", () => { if ($("file").files.length) take($("file").files[0]); });
  for (const place of [$("drop"), document.body]) {
    place.addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
    place.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  }
  document.body.addEventListener("drop", event => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files[0]); });
  addEventListener("paste", event => { if (event.clipboardData.files.length) take(event.clipboardData.files[0]); });
  $("class").addEventListener("change", () => { state.class = $("class").value.trim() ? classOf($("class").value) : ""; ask(); });
  $("against").addEventListener("change", () => { state.against = $("against").value.split(";").filter(text => text.trim()).map(classOf); ask(); });
  $("target").addEventListener("change", () => { state.target = $("target").value; ask(); });
  const layerName = () => { const one = layers?.layers[$("layer").value - 1]; return one ? `${one.name}, a map of ${one.shape[1]} × ${one.shape[2]}` : "the methods’ own choice"; };
  $("layer").addEventListener("input", () => { $("layer-name").textContent = layerName(); $("layer").setAttribute("aria-valuetext", layerName()); });
  $("layer").addEventListener("change", () => { state.layer = layers?.layers[$("layer").value - 1]?.name ?? ""; ask(); });
  $("more").addEventListener("toggle", () => { if (!layers) loadLayers().catch(trouble); });
  for (const id of ["model", "head"]) $(id).addEventListener("change", () => { Object.assign(state, { model: Number($(id).value), class: "", against: [], layer: id === "head" ? state.layer : "" }); layers = null; $("more").open = false; predictions = []; $("predictions").replaceChildren(); classList(); ask(); });
  $("signed").addEventListener("change", () => { state.signed = $("signed").checked; ask(); });
  const looks = { opacity: value => { look.opacity = value / 100; }, threshold: value => { look.threshold = value / 100; }, palette: value => { look.palette = value; }, view: value => { look.view = value; } };
  for (const [id, set] of Object.entries(looks)) $(id).addEventListener("input", () => { set($(id).value); fill(); redraw(); paint(); remember(); });
  $("zoom-in").addEventListener("click", () => zoomTo(look.zoom * 1.5));
  $("zoom-out").addEventListener("click", () => zoomTo(look.zoom / 1.5));
  $("zoom-none").addEventListener("click", () => zoomTo(1));
  $("others").addEventListener("toggle", fits);
  $("filter").addEventListener("input", methodLists);
  $("own-method").addEventListener("submit", event => { event.preventDefault(); const text = $("own").value.trim(); if (text && !state.methods.includes(text)) { state.methods.push(text); $("own").value = ""; ask(); } });
  $("keep").addEventListener("click", keep);
  $("copy-link").addEventListener("click", () => copy(location.href, "The link is copied. It works as long as the photo is kept by this server."));
  for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", () => copy($(button.dataset.copies).textContent, "Copied."));
  addEventListener("hashchange", () => { fromAddress(); restore(); });
  const themes = ["", "light", "dark"];
  const theme = name => { if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme; };
  theme(localStorage.getItem("camlucida-theme"));
  $("theme").addEventListener("click", () => { const next = themes[(themes.indexOf(localStorage.getItem("camlucida-theme") ?? "") + 1) % 3]; localStorage.setItem("camlucida-theme", next); theme(next); say(next ? `Colours: ${next}` : "Colours: as the system has them"); });
}
async function copy(text, words) {
  try { await navigator.clipboard.writeText(text); say(words); } catch { say("The browser does not let this page copy; mark the text and copy it."); }
}
async function restore() {
  fill();
  if (!state.photo) return;
  try { thumb(await get(`${photoAddress(state.photo)}?facts=1`)); } catch (error) { state.photo = ""; return trouble(error); }
  ask();
}
async function start() {
  facts = await get("/api/facts");
  Object.assign(context, { methods: facts.methods, questions: facts.grades?.questions ?? {}, facts, state, choose, classes, nameOf, trouble, asked, take, layersOf: async () => { if (!layers) await loadLayers(); return layers; } });
  setPalettes(facts.palettes, facts.signed_palette);
  $("palette").replaceChildren(...Object.keys(facts.palettes).map(name => make("option", { value: name }, name)));
  $("target").replaceChildren(...facts.targets.map(name => make("option", { value: name }, name)));
  $("samples").replaceChildren(...sampleButtons(facts.samples));
  $("big-samples").replaceChildren(...sampleButtons(facts.samples));
  if (facts.data) $("tab-data").hidden = false;
  document.body.dataset.ready = "yes";
  fromAddress(); classList(); listen(); methodLists(); restore();
}
start().catch(trouble);

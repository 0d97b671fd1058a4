// I-CAM: how much each layer matters, as bars, and each layer's own map.
import { make } from "/static/talk.js";
import { needsPhoto, panel, slider } from "/static/panel.js";

export function openLayers(context) {
  const copies = slider(4, 32, 8, 4);
  const own = panel("layers", { title: "Which layers matter?", lead: "I-CAM scores every block by what changes in it when the photo is perturbed, keeps the best, and fuses their maps. Choose a bar to see the layer’s own map.", button: "Ask I-CAM", fields: [copies.label("Perturbed copies")] }, context);
  own.place.insertBefore(make("div", { className: "toolbar-place" }), own.results);
  own.start.addEventListener("click", async () => {
    if (own.start.dataset.runs) return own.stop();
    if (!needsPhoto(context)) return;
    const question = context.asked(), cards = make("div", { className: "cards two" }), bars = make("div", { className: "bars", role: "group", "aria-label": "Layers from input to output" });
    let most = 0;
    const shown = map => cards.lastChild.replaceWith(context.card(map, question, { small: true }));
    await own.run("layers", { ...question, methods: ["icam"], copies: Number(copies.input.value) }, event => {
      if (event.event === "map") { cards.append(context.card(event, question, { small: true }), make("article", { className: "card small" }, make("p", { className: "note" }, "Choose a layer."))); own.results.append(cards, make("h3", {}, "Layers, from the input to the output"), bars); }
      if (event.event !== "layer") return;
      most = Math.max(most, event.weight);
      const fill = make("span", { className: "fill" }), bar = make("button", { type: "button", "aria-pressed": "false", className: event.kept > 0 ? "layer" : "layer out" }, make("span", { className: "name" }, event.layer), make("span", { className: "track" }, fill), make("span", { className: "share" }, event.kept > 0 ? `${(100 * event.weight).toFixed(1)} %` : "left out"));
      bar.dataset.weight = event.weight;
      bar.addEventListener("click", () => { for (const other of bars.children) other.setAttribute("aria-pressed", other === bar); shown(event.map); });
      bars.append(bar);
      for (const one of bars.children) one.querySelector(".fill").style.width = `${100 * one.dataset.weight / (most || 1)}%`;
    });
    const best = [...bars.children].sort((a, b) => b.dataset.weight - a.dataset.weight)[0];
    best?.click();
  });
  return () => {};
}

// Two faces: similarity, decision, what makes them similar and what sets them apart.
import { make, photoAddress } from "/static/talk.js";
import { field, panel } from "/static/panel.js";

export function openFaces(context) {
  const chosen = { probe: "", gallery: "" }, places = {};
  const method = make("select", {});
  const own = panel("faces", { title: "Do these two faces match, and why?", lead: "Drop or choose two photos. The similarity is that of the network’s embeddings; the maps show which pixels make the faces similar, and which set them apart.", button: "Compare", fields: [field("Method", method)] }, context);
  const sides = make("div", { className: "pair" });
  own.place.insertBefore(sides, own.place.querySelector(".ask"));
  const set = (side, photo) => {
    chosen[side] = photo.key;
    places[side].image.src = photoAddress(photo.key); places[side].image.hidden = false;
    places[side].image.alt = `${side}: ${photo.name}`;
    places[side].name.textContent = photo.name;
  };
  for (const [side, words] of [["probe", "First photo"], ["gallery", "Second photo"]]) {
    const file = make("input", { type: "file", accept: "image/*", className: "unseen", id: `face-${side}` }), image = make("img", { alt: "", hidden: true }), name = make("p", {}, words), samples = make("div", { className: "samples", role: "group", "aria-label": `${words}: samples` });
    const place = make("div", { className: "drop", role: "group", "aria-label": words }, image, name, make("label", { className: "button", for: file.id }, "Choose a photo"), file, samples);
    places[side] = { image, name, samples };
    const use = photo => { context.say(""); set(side, photo); };
    file.addEventListener("change", () => { if (file.files.length) context.take(file.files[0], use); });
    place.addEventListener("dragover", event => { event.preventDefault(); place.classList.add("over"); });
    place.addEventListener("dragleave", () => place.classList.remove("over"));
    place.addEventListener("drop", event => { event.preventDefault(); event.stopPropagation(); place.classList.remove("over"); context.take(event.dataTransfer.files[0], use); });
    sides.append(place);
  }
  own.start.addEventListener("click", () => {
    if (own.start.dataset.runs) return own.stop();
    if (!chosen.probe || !chosen.gallery) return context.trouble(new Error("Choose two photos first."));
    const crops = {};
    own.run("verify", { ...chosen, methods: [method.value] }, event => {
      if (event.event === "face") crops[event.side] = event.key;
      else if (event.event === "verdict") own.results.append(
        make("h3", { className: `verdict ${event.match ? "yes" : "no"}` }, event.match === null ? "No threshold is known" : event.match ? "✓ They match" : "✗ They do not match"),
        make("p", {}, event.words), ...event.messages.map(text => make("p", { className: "note" }, text)), make("p", { className: "note care" }, `What the maps do not show: ${event.care}`));
      else if (event.event === "skipped") own.results.append(make("p", { className: "trouble" }, `Left out: ${event.method}: ${event.words}`));
      else if (event.event === "along") own.results.append(
        make("p", { className: "files" }, "Take along: ", make("a", { href: `/api/pictures/${event.png}`, download: `${event.name}.png` }, "PNG"), make("a", { href: URL.createObjectURL(new Blob([event.json], { type: "application/json" })), download: `${event.name}.json` }, "JSON")),
        make("details", { className: "lines" }, make("summary", {}, "The same on the command line"), make("pre", { tabIndex: 0 }, event.command)));
      else if (event.event === "pair") own.results.append(make("div", { className: "faces" }, ...["probe", "gallery"].map(side => make("div", { className: "face" },
        make("figure", {}, make("img", { src: `/api/pictures/${crops[side]}`, alt: `The ${side} face as the network saw it` }), make("figcaption", {}, side)),
        ...["similar", "dissimilar"].map(kind => make("figure", {}, make("img", { src: `/api/pictures/${event.pictures[`${side} ${kind}`]}`, alt: `What makes the ${side} face ${kind}` }), make("figcaption", {}, kind === "similar" ? "e+: makes it similar" : "e−: sets it apart")))))), ...event.messages.map(text => make("p", { className: "note" }, text)));
    });
  });
  return () => {
    if (method.options.length) return;
    method.replaceChildren(...["fame:iterations=75", "gradcam", "saliency", "layercam"].map(value => make("option", { value }, value)));
    for (const side of ["probe", "gallery"]) places[side].samples.replaceChildren(...context.facts.faces.map(photo => make("button", { type: "button", title: photo.name, onclick: () => set(side, photo) }, make("img", { src: `${photoAddress(photo.key)}?small=1`, alt: photo.name }))));
  };
}

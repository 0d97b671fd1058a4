// What the other tabs share: a question about the photo, a button that starts and stops, progress, results.
import { make, work } from "/static/talk.js";

export function panel(name, { title, lead, button, fields = [] }, context) {
  const place = document.getElementById(`panel-${name}`);
  const start = make("button", { type: "button" }, button), bar = make("progress", { max: 1, hidden: true, "aria-label": "How far it is" });
  const results = make("div", { className: "results" });
  place.append(make("h2", { className: "big" }, title), make("p", { className: "lead" }, lead), make("div", { className: "ask" }, ...fields, start), bar, results);
  let running = null;
  return {
    place, start, results,
    stop: () => running?.abort(),
    // Runs a job into the results; true unless it was stopped or went wrong.
    async run(kind, more, tell, { keep = false } = {}) {
      running?.abort();
      const own = running = new AbortController();
      context.trouble();
      if (!keep) results.replaceChildren();
      bar.hidden = false; bar.removeAttribute("value");
      start.textContent = "Stop"; start.dataset.runs = "yes";
      let well = true;
      try {
        await work(kind, more, event => {
          if (own.signal.aborted) return;
          if (event.event === "progress") { bar.value = event.share; context.say(event.what); }
          else if (event.event === "waiting") context.say(`${event.before} ${event.before === 1 ? "request comes" : "requests come"} first`);
          else tell(event);
        }, own.signal);
      } catch (error) { well = false; if (error.name !== "AbortError") context.trouble(error); }
      if (own === running) { running = null; bar.hidden = true; start.textContent = button; delete start.dataset.runs; context.say(""); }
      return well;
    },
  };
}

export const needsPhoto = context => { if (!context.state.photo) context.trouble(new Error("Choose a photo first.")); return Boolean(context.state.photo); };
export function field(words, control) { return make("label", {}, words, control); }
export function slider(min, max, value, step = 1) {
  const input = make("input", { type: "range", min, max, step, value }), shown = make("span", {}, String(value));
  input.addEventListener("input", () => { shown.textContent = input.value; });
  return { input, label: words => make("label", {}, words, " ", shown, input) };
}

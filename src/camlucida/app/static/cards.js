// A card for each method: its map, what was explained, its grade, and what has to be known of it.
import { make } from "/static/talk.js";
import { Drawing } from "/static/draw.js";
import { checksOf } from "/static/checks.js";

export const MARKS = { safe: "✓", "with caution": "!", "not safe": "✗", "not tested": "–", "not enough to tell": "?" };
const number = value => value === 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1000 ? value.toExponential(1) : value.toPrecision(3);

export function badge(grade) {
  return make("span", { className: `grade ${grade.replaceAll(" ", "-")}` }, make("span", { "aria-hidden": "true" }, MARKS[grade] ?? "–"), ` ${grade}`);
}

// The grade for the question that is asked, its weightiest reason, and the others folded away.
function graded(grades, question, questions, model) {
  const found = gradeFor(grades, question, model);
  if (!found) return null;
  const { grade, reasons } = found.answers[question];
  const rest = Object.entries(found.answers).filter(([name]) => name !== question);
  return make("div", { className: "graded" },
    make("p", {}, badge(grade), make("span", { className: "note" }, ` for “${questions[question]}”`)),
    question === "contrast" && found !== grades.margin ? make("p", { className: "note" }, "Audited on the logit of one class; shown here is the difference of two, which was not audited.") : null,
    reasons.length ? make("p", { className: "reason" }, reasons[0]) : null,
    make("details", {}, make("summary", {}, "All reasons and questions"),
      reasons.length ? make("ul", {}, ...reasons.map(text => make("li", {}, text))) : null,
      ...rest.map(([name, one]) => make("p", {}, badge(one.grade), ` for “${questions[name]}” ${one.reasons[0] ?? ""}`)),
      make("p", { className: "note" }, `As audited: ${found.label}.`)));
}
// The first model was audited. With a rival the method explains a margin, and has the grades of that where it was audited on one.
export function gradeFor(grades, question, model) { return model ? null : (question === "contrast" && grades?.margin) || grades?.own || null; }

export function card(answer, asked, context, { small = false } = {}) {
  const value = make("output", { className: "value" }), area = make("p", { className: "note area" });
  const told = { area: null, iou: null, value: null };
  const drawing = new Drawing(answer, asked.photo, news => {
    Object.assign(told, news);
    const parts = [];
    if (context.look.threshold > 0) parts.push(`above the threshold: ${(100 * told.area).toFixed(1)} % of what the model saw`);
    if (told.iou !== null && context.look.threshold > 0) parts.push(`IoU with the object ${told.iou.toFixed(3)}`);
    area.textContent = parts.join("; ").replace(/^./, first => first.toUpperCase());
    area.hidden = !parts.length;
    value.textContent = told.value === null ? "" : told.value === undefined ? "not seen" : number(told.value);
  });
  const notes = answer.messages;
  const question = asked.against.length ? "contrast" : "evidence";
  const method = context.methods.find(one => one.name === answer.method.split(":")[0]);
  return make("article", { className: `card${small ? " small" : ""}`, "aria-label": answer.label },
    make("header", {}, make("h3", {}, answer.label), value),
    drawing.element,
    area,
    make("p", { className: "words" }, answer.described),
    small ? null : graded(method?.grade, question, context.questions, asked.model),
    notes.length ? make("ul", { className: "notes" }, ...notes.map(text => make("li", {}, text))) : null,
    small ? null : checksOf(answer, asked, drawing, context),
    small ? null : make("details", { className: "about" }, make("summary", {}, "About this map"),
      make("p", {}, method ? `${method.says} (${method.paper})` : ""),
      make("p", {}, `Layer: ${answer.layers.join(", ") || "none, it explains the input"}. Values before scaling: ${number(answer.raw[0])} to ${number(answer.raw[1])}. Took ${answer.seconds} s.`),
      ...answer.assumed.map(text => make("p", { className: "note" }, text))));
}

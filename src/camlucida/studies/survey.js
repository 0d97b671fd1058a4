"use strict";
// Answers are kept in this browser only, until they are downloaded.
const form = document.getElementById("survey"), state = document.getElementById("state");
const survey = form.dataset.survey, count = Number(form.dataset.count);
const place = "camlucida-survey-" + survey;
let kept = {};
try { kept = JSON.parse(localStorage.getItem(place)) || {}; } catch { kept = {}; }
const draw = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), b => b.toString(16).padStart(2, "0")).join("");
let rater = kept.rater || draw();
for (const [name, value] of Object.entries(kept.answers || {})) {
  const found = form.querySelector(`input[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`);
  if (found) found.checked = true;
}
const answers = () => Object.fromEntries(new FormData(form));
function show() {
  const done = Object.keys(answers()).length;
  state.textContent = `${done} of ${count} answered`;
  try { localStorage.setItem(place, JSON.stringify({ rater, answers: answers() })); } catch { /* not kept */ }
}
form.addEventListener("change", show);
form.addEventListener("submit", event => event.preventDefault());
document.getElementById("fresh").addEventListener("click", () => {
  if (Object.keys(answers()).length && !confirm("Forget these answers, for another person?")) return;
  rater = draw();
  form.reset();
  show();
});
document.getElementById("download").addEventListener("click", () => {
  const given = answers(), missing = count - Object.keys(given).length;
  const content = JSON.stringify({ survey, rater, answers: given }, null, 2) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `answers-${survey}-${rater}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
  state.textContent = missing ? `Downloaded; ${missing} of ${count} not answered yet` : "Downloaded. Thank you!";
});
show();

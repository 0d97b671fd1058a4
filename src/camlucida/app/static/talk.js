// Everything that is asked of the server.

const meta = name => document.querySelector(`meta[name="camlucida-${name}"]`).content;
export const LIMIT = Number(meta("limit"));

async function refused(answer) {
  const words = (await answer.text()).trim();
  const error = new Error(words || `the server answered ${answer.status}`);
  error.status = answer.status;
  return error;
}

export async function get(path, kind = "json") {
  const answer = await fetch(path);
  if (!answer.ok) throw await refused(answer);
  return answer[kind]();
}

function post(path, body, headers = {}, signal = undefined) {
  return fetch(path, { method: "POST", body, signal, headers: { "x-camlucida": meta("secret"), ...headers } });
}

export async function upload(file) {
  if (file.size > LIMIT) throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB; at most ${LIMIT / 2 ** 20} MB are taken`);
  const answer = await post("/api/photos", file, { "x-name": encodeURIComponent(file.name || "photo"), "content-type": "application/octet-stream" });
  if (!answer.ok) throw await refused(answer);
  return answer.json();
}

// Runs a job and hands every event to `tell`; leaving the page, or `signal`, ends it on the server too.
export async function work(kind, asked, tell, signal) {
  const answer = await post(`/api/jobs/${kind}`, JSON.stringify(asked), { "content-type": "application/json" }, signal);
  if (!answer.ok) throw await refused(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", trouble = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = JSON.parse(part.replace(/^data: /, ""));
      if (event.event === "error") trouble = event.words;
      else tell(event);
    }
  }
  if (trouble) throw new Error(trouble);
}

export async function values(key) {
  return new Float32Array(await get(`/api/values/${encodeURIComponent(key)}`, "arrayBuffer"));
}

const pictures = new Map();
export function picture(address) {
  if (!pictures.has(address)) {
    const found = new Image();
    found.src = address;
    pictures.set(address, found.decode().then(() => found));
    if (pictures.size > 40) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(address);
}
export const photoAddress = key => `/api/photos/${key.split("/").map(encodeURIComponent).join("/")}`;

// An element with properties, attributes (names with a dash or colon) and children; texts stay texts.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (/[-]/.test(name) || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element[name] = value;
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

// The server's calls. What it refuses is thrown as a Problem, whose kind is the name in RFC 9457's `type`.

import { askKey, key } from "./dialogs.js";

export class Problem extends Error {
  constructor(status, kind, detail, more = {}) {
    super(detail);
    Object.assign(this, { status, kind, ...more });
  }
}

// Relative to the page, which may stand below a proxy's path.
const address = (path) => new URL(path, document.baseURI);

async function once(path, body, signal) {
  const headers = key() ? { "X-API-Key": key() } : {};
  try {
    return await fetch(address(path), { method: body ? "POST" : "GET", body, headers, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, (await opens(body?.get("file"))) ? "Offline" : "UnreadableFile", error.message);
  }
}

// A browser says of a folder, and of a file that is gone since it was chosen, what it says of a server that is gone.
async function opens(file) {
  return !file || file.slice(0, 1).arrayBuffer().then((byte) => byte.byteLength === 1, () => false);
}

// The answer; asks for a key where one is needed, unless it is to be quiet.
export async function ask(path, body, { signal, quiet = false } = {}) {
  for (;;) {
    const used = key();
    const answer = await once(path, body, signal);
    if (answer.ok) return answer;
    if (answer.status !== 401 || quiet || !(await askKey(used))) throw await problemOf(answer);
  }
}

async function problemOf(answer) {
  const members = await answer.json().catch(() => ({}));
  return problem(members, answer.status, Number(answer.headers.get("Retry-After")) || 0);
}

function problem(members, status, wait = 0) {
  const kind = (members.type ?? "").replace("urn:threadsafe-ocr:", "");
  return new Problem(members.status ?? status, kind, members.detail ?? "", { wait, request: members.request_id });
}

function form(file, fields) {
  const body = new FormData();
  body.append("file", file, file.name || "page.png");
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return body;
}

export const read = (file, fields = {}, signal) => ask("v1/read", form(file, fields), { signal });

// The pages, each as soon as it is read: { page, count }.
export async function* stream(file, fields, signal) {
  const answer = await ask("v1/read/stream", form(file, fields), { signal });
  const count = Number(answer.headers.get("X-Page-Count")) || 1;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "Offline", error.message);
    }
    const lines = (rest + (piece.value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const page = JSON.parse(line);
      if (page.error) throw problem(page.error, 500);
      yield { page, count };
    }
    if (piece.done) return;
  }
}

export const stats = async ({ quiet }) => (await ask("v1/stats", null, { quiet })).json();

export const sample = async () => new File([await (await ask("static/sample.png")).blob()], "sample.png", { type: "image/png" });

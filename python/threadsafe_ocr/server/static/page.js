// What is read, which page and which line is looked at, and who has to know.

import * as api from "./api.js";
import { askPassword } from "./dialogs.js";
import * as files from "./files.js";
import { fire } from "./fifty.js";
import * as lines from "./lines.js";
import * as live from "./live.js";
import * as sheet from "./sheet.js";
import { kindOf, number, put, setLanguage, text, translate } from "./text.js";

const $ = (selector) => document.querySelector(selector);
const NOTHING = { lines: [], width: 1, height: 1 };

// file: what was given. pages: the server's, each with `url` and `file` of its picture. hovered, chosen: a line's index.
const state = { file: null, password: "", pages: [], count: 1, at: 0, hovered: null, chosen: null, reading: null };

const page = () => state.pages[state.at] ?? NOTHING;

const say = (key, values) => put($("#status"), key, values);

function view(name) {
  for (const id of ["welcome", "problem"]) $(`#${id}`).hidden = id !== name;
  $("#scroll").hidden = $("#bar").hidden = name !== "page";
}

// ---- reading

async function read(file, password = "") {
  state.reading?.abort();
  for (const old of state.pages) URL.revokeObjectURL(old.url);
  const reading = new AbortController();
  Object.assign(state, { file, password, pages: [], count: 1, at: 0, hovered: null, chosen: null, reading });
  enable();
  $("#answers").hidden = true;
  const start = performance.now();
  const own = await files.shown(file);
  if (reading !== state.reading) return;
  $("#name").textContent = file.name;
  work("sending", { name: file.name });
  renderPages();
  show();
  if (own) sheet.showPicture(own, file.name);
  view(own ? "page" : "working");
  $("#stage").classList.toggle("busy", true);
  try {
    const fields = { ...(own ? {} : { images: "true" }), ...(password ? { password } : {}) };
    for await (const { page: got, count } of api.stream(file, fields, reading.signal)) {
      if (reading !== state.reading) return;
      add(got, count, own);
    }
    sayFinished((performance.now() - start) / 1000);
  } catch (error) {
    if (reading !== state.reading) return;
    work(null);
    if (error.name === "AbortError") stopped();
    else await explain(error, (given = password) => read(file, given));
  } finally {
    if (reading === state.reading) {
      state.reading = null;
      work(null);
      enable();
    }
  }
}

function add(got, count, own) {
  const picture = own ? state.file : files.fromBase64(got.image);
  delete got.image;
  state.pages.push({ ...got, file: picture, url: own ?? URL.createObjectURL(picture) });
  state.count = count;
  if (state.pages.length === 1) {
    if (!own) sheet.showPicture(state.pages[0].url, state.file.name);
    view("page");
    show();
  }
  renderPages();
  if (count > 1) work("reading", { number: Math.min(state.pages.length + 1, count), count }, state.pages.length / count);
}

function sayFinished(seconds) {
  const total = state.pages.reduce((sum, one) => sum + one.lines.length, 0);
  const values = { lines: number(total, 0), pages: number(state.pages.length, 0), seconds: number(seconds) };
  say(state.pages.length > 1 ? "done_pages" : "done", values);
}

function stopped() {
  say("cancelled");
  if (!state.pages.length) view("welcome");
}

// share: 0 to 1, or nothing where it is not known yet. key: null when it is over.
function work(key, values, share) {
  $("#working").hidden = key === null;
  $("#stage").classList.toggle("busy", key !== null);
  if (key === null) return;
  say(key, values);
  put($("#working-text"), key, values);
  if (share === undefined) $("#progress").removeAttribute("value");
  else $("#progress").value = share;
}

function enable() {
  const nothing = !state.pages.length;
  for (const button of document.querySelectorAll("#copy-all, #downloads button, #fifty")) button.disabled = nothing;
}

// ---- what went wrong

// again: does once more what failed, with a password where it is given one.
async function explain(error, again) {
  console.warn(error);
  const kind = kindOf(error);
  const part = (tag, name, key, values) => {
    const made = Object.assign(document.createElement(tag), { className: name });
    if (key) put(made, key, values);
    return made;
  };
  const button = (key, action) => {
    const made = part("button", "", key);
    made.type = "button";
    made.addEventListener("click", action);
    return made;
  };
  const buttons = part("p", "buttons");
  if (kind === "PasswordError") buttons.append(button("go_on", () => withPassword(again)));
  else buttons.append(button("again", () => again()));
  buttons.append(button("another", files.choose));
  const detail = part("p", "detail");
  detail.textContent = error.status === 0 ? "" : error.message;
  const request = error.request ? [part("p", "small", "request", { id: error.request })] : [];
  $("#problem").replaceChildren(part("h2", "", kind), part("p", "", `${kind}_hint`), detail, buttons, ...request);
  $("#problem").hidden = false;
  // What was read before it went wrong stays.
  if (!state.pages.length) view("problem");
  say(kind);
  if (kind === "PasswordError" && !state.password) await withPassword(again);
}

async function withPassword(again) {
  const password = await askPassword();
  if (password) await again(password);
}

// ---- pages and lines

function renderPages() {
  const several = state.count > 1;
  $("#thumbnails").hidden = !several;
  const query = $("#search").value;
  const list = $("#thumbnails ol");
  if (!several) return list.replaceChildren();
  while (list.children.length > state.pages.length) list.lastChild.remove();
  for (const [index, one] of state.pages.entries()) {
    const item = list.children[index] ?? list.appendChild(thumbnail(one, index));
    const found = lines.find(one, query)?.size ?? 0;
    const button = item.firstChild;
    button.setAttribute("aria-label", text(found ? "page_found" : "page_number", { number: index + 1, count: found }));
    button.setAttribute("aria-current", index === state.at ? "page" : "false");
    button.lastChild.textContent = found || "";
  }
}

function thumbnail(one, index) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const image = Object.assign(document.createElement("img"), { src: one.url, alt: "", loading: "lazy" });
  button.append(image, Object.assign(document.createElement("span"), { textContent: index + 1 }), document.createElement("b"));
  button.addEventListener("click", () => turnTo(index));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function turnTo(index) {
  Object.assign(state, { at: index, hovered: null, chosen: null });
  sheet.showPicture(page().url, text("picture", { number: index + 1, name: state.file.name }));
  renderPages();
  show();
}

// The page that is looked at, its text, and what the search finds in it.
function show() {
  sheet.showLines(page());
  lines.show(page());
  search();
}

function search() {
  const query = $("#search").value;
  const found = lines.find(page(), query);
  lines.filter(page(), query, found);
  if (found && !found.has(state.chosen)) state.chosen = null;
  $("#found").textContent = found ? text("found", { count: number(found.size, 0), total: number(page().lines.length, 0) }) : "";
  $("#empty").hidden = page().lines.length > 0;
  $("#empty").textContent = text(state.pages.length ? "blank" : "nothing_yet");
  mark();
}

function mark() {
  const found = lines.find(page(), $("#search").value);
  sheet.mark({ ...state, found });
  lines.mark(state);
}

function hover(index) {
  if (state.hovered === index) return;
  state.hovered = index;
  mark();
}

function select(index, reveal) {
  state.chosen = index;
  mark();
  if (index !== null) reveal(index);
}

async function copyLine(index) {
  const words = page().lines[index].text;
  say((await files.copy(words)) ? "copied" : "copy_failed", { text: words });
}

// ---- all of it

const textOf = () => state.pages.map((one) => one.text).join("\n\n");

async function copyAll() {
  say((await files.copy(textOf())) ? "copied_all" : "copy_failed");
}

async function download(format) {
  $("#problem").hidden = true;
  const name = `${state.file.name.replace(/\.\w+$/, "")}.${format}`;
  try {
    files.save(await content(format, name), name);
    say("downloaded", { name });
  } catch (error) {
    await explain(error, () => download(format));
  }
}

// Text and JSON are here already; the others the server writes, for which it reads the file again.
async function content(format, name) {
  if (format === "txt") return new Blob([`${textOf()}\n`], { type: "text/plain" });
  if (format === "json") {
    const pages = state.pages.map(({ file: _file, url: _url, ...told }) => told);
    return new Blob([JSON.stringify({ pages }, null, 1)], { type: "application/json" });
  }
  say("writing", { name });
  return (await api.read(state.file, { format, ...(state.password ? { password: state.password } : {}) })).blob();
}

async function fifty() {
  $("#fifty").disabled = true;
  await fire(page().file, say).finally(() => ($("#fifty").disabled = false));
}

// ---- beginning

const heard = { onHover: hover, onCopy: copyLine };
sheet.listen({ ...heard, onSelect: (index) => select(index, lines.reveal) });
lines.listen({ ...heard, onSelect: (index) => select(index, sheet.reveal) });
files.listen({
  onFiles: async ([first, ...others]) => {
    await read(first);
    if (others.length) say("one_only");
  },
  onError: (error) => say("no_camera", { why: error.message }),
});
async function readSample() {
  try {
    await read(await api.sample());
  } catch (error) {
    await explain(error, readSample);
  }
}
$("#sample").addEventListener("click", readSample);
$("#cancel").addEventListener("click", () => state.reading?.abort());
$("#search").addEventListener("input", () => {
  search();
  renderPages();
});
$("#copy-all").addEventListener("click", copyAll);
for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => download(button.dataset.format));
$("#fifty").addEventListener("click", fifty);
for (const button of document.querySelectorAll("[data-language]")) button.addEventListener("click", () => setLanguage(button.dataset.language));
document.addEventListener("language", () => {
  renderPages();
  search();
  lines.retranslate(page());
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) select(null);
});

translate();
// Asks for the key now, where there is one.
api.stats({ quiet: false }).catch(() => {}).finally(live.watch);

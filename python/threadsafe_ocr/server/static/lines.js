// The text beside the page: a line a row, in reading order. One row is in the tab order; the arrow keys go to the others.

import { percent, rank } from "./sheet.js";
import { text } from "./text.js";

const list = document.querySelector("#lines");

export function listen({ onHover, onSelect, onCopy }) {
  const indexOf = (event) => {
    const row = event.target.closest("li");
    return row ? Number(row.dataset.index) : null;
  };
  list.addEventListener("pointerover", (event) => onHover(indexOf(event)));
  list.addEventListener("pointerleave", () => onHover(null));
  list.addEventListener("click", (event) => (event.target.closest(".copy") ? onCopy : onSelect)(indexOf(event)));
  list.addEventListener("keydown", (event) => {
    const rows = [...list.querySelectorAll("li:not([hidden])")];
    const at = rows.indexOf(event.target.closest("li"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const row = rows[Math.min(Math.max(to, 0), rows.length - 1)];
    onSelect(Number(row.dataset.index));
    row.querySelector(".line").focus();
  });
}

export function show(page) {
  list.replaceChildren(...page.lines.map(row));
  offerToTab(0);
}

function row(line, index) {
  const item = document.createElement("li");
  item.dataset.index = index;
  const words = Object.assign(document.createElement("span"), { className: "words", dir: "auto", textContent: line.text });
  const score = Object.assign(document.createElement("span"), { className: `score ${rank(line.score)}`, textContent: percent(line.score) });
  const button = Object.assign(document.createElement("button"), { type: "button", className: "line", tabIndex: -1 });
  button.append(words, score);
  const copy = Object.assign(document.createElement("button"), { type: "button", className: "copy", tabIndex: -1 });
  item.append(button, copy);
  translate(item, line, index);
  return item;
}

function translate(item, line, index) {
  item.querySelector(".line").setAttribute("aria-label", `${line.text}, ${text("score", { score: percent(line.score) })}`);
  const copy = item.querySelector(".copy");
  copy.title = text("copy");
  copy.setAttribute("aria-label", text("copy_line", { number: index + 1 }));
}

// In another language.
export function retranslate(page) {
  page.lines.forEach((line, index) => {
    translate(list.children[index], line, index);
    list.children[index].querySelector(".score").textContent = percent(line.score);
  });
}

function offerToTab(index) {
  [...list.children].forEach((item, at) => {
    for (const button of item.querySelectorAll("button")) button.tabIndex = at === index ? 0 : -1;
  });
}

export function mark({ hovered, chosen }) {
  [...list.children].forEach((item, index) => {
    item.classList.toggle("hovered", index === hovered);
    item.classList.toggle("selected", index === chosen);
    item.querySelector(".line").setAttribute("aria-current", String(index === chosen));
  });
  if (chosen !== null) offerToTab(chosen);
}

export function reveal(index) {
  list.children[index]?.scrollIntoView({ block: "nearest" });
}

// The indexes of the lines that contain the words, whatever their case; null where nothing is searched.
export function find(page, query) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return null;
  return new Set(page.lines.flatMap((line, index) => (line.text.toLowerCase().includes(wanted) ? [index] : [])));
}

// Shows only what was found, with the words marked.
export function filter(page, query, found) {
  const wanted = query.trim().toLowerCase();
  page.lines.forEach((line, index) => {
    const item = list.children[index];
    item.hidden = found !== null && !found.has(index);
    const words = item.querySelector(".words");
    const at = found === null ? -1 : line.text.toLowerCase().indexOf(wanted);
    if (at < 0) {
      words.textContent = line.text;
      return;
    }
    const marked = Object.assign(document.createElement("mark"), { textContent: line.text.slice(at, at + wanted.length) });
    words.replaceChildren(line.text.slice(0, at), marked, line.text.slice(at + wanted.length));
  });
  const [first] = found ?? [0];
  if (first !== undefined) offerToTab(first);
}

// The page's picture with a box around every line, and a card that says what the line is.

import { number, text } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const $ = (selector) => document.querySelector(selector);
const [scroll, sheet, picture, boxes, card] = ["#scroll", "#sheet", "#picture", "#boxes", "#card"].map($);

// Below the first a line is unsure, below the second less sure; docs/server.md names them.
export const rank = (score) => (score < 0.7 ? "low" : score < 0.9 ? "fair" : "good");

// Where one should not be wrong, 99.96 is not 100.
export const percent = (score) => number(Math.floor(score * 1000) / 10);

let lines = [];
let selected = null;
let zoom = 1;

export function listen({ onHover, onSelect, onCopy }) {
  const indexOf = (event) => (event.target.dataset?.index === undefined ? null : Number(event.target.dataset.index));
  boxes.addEventListener("pointerover", (event) => onHover(indexOf(event)));
  boxes.addEventListener("pointerleave", () => onHover(null));
  boxes.addEventListener("click", (event) => onSelect(indexOf(event)));
  card.querySelector("button").addEventListener("click", () => onCopy(selected));
  $("#zoom-in").addEventListener("click", () => resize(Math.min(zoom * 1.25, 6)));
  $("#zoom-out").addEventListener("click", () => resize(Math.max(zoom / 1.25, 0.3)));
  $("#zoom-fit").addEventListener("click", () => resize(1));
  new ResizeObserver(() => resize(zoom)).observe(scroll);
}

// The picture alone, while its lines are being read.
export function showPicture(url, name) {
  picture.src = url;
  picture.alt = name;
  showLines({ width: 1, height: 1, lines: [] });
}

export function showLines(page) {
  lines = page.lines;
  selected = null;
  boxes.setAttribute("viewBox", `0 0 ${page.width} ${page.height}`);
  boxes.replaceChildren(
    ...lines.map((line, index) => {
      const box = document.createElementNS(SVG, "polygon");
      box.setAttribute("points", line.polygon.join(" "));
      box.setAttribute("class", rank(line.score));
      box.dataset.index = index;
      return box;
    }),
  );
  card.hidden = true;
}

// hovered, chosen: indexes or null. found: the indexes that a search found, or null where nothing is searched.
export function mark({ hovered, chosen, found }) {
  selected = chosen;
  [...boxes.children].forEach((box, index) => {
    box.classList.toggle("hovered", index === hovered);
    box.classList.toggle("selected", index === chosen);
    box.classList.toggle("found", found?.has(index) ?? false);
    box.classList.toggle("dimmed", found !== null && !found.has(index));
  });
  // What was clicked stays, so that the pointer can go over other lines to the card.
  const shown = chosen ?? hovered;
  card.hidden = shown === null;
  if (shown !== null) fill(shown, shown === chosen);
}

function fill(index, pinned) {
  const line = lines[index];
  card.classList.toggle("pinned", pinned);
  card.querySelector("p").textContent = line.text;
  const score = card.querySelector(".score");
  score.textContent = text("score", { score: percent(line.score) });
  score.className = `score ${rank(line.score)}`;
  card.querySelector("button").hidden = !pinned;
  const { width, height } = boxes.viewBox.baseVal;
  const [x0, y0, , y1] = line.box;
  const below = y1 / height < 0.75;
  card.style.top = below ? `${(100 * y1) / height}%` : "auto";
  card.style.bottom = below ? "auto" : `${100 - (100 * y0) / height}%`;
  const right = x0 / width > 0.55;
  card.style.left = right ? "auto" : `${(100 * Math.max(x0, 0)) / width}%`;
  card.style.right = right ? `${Math.max(100 - (100 * line.box[2]) / width, 0)}%` : "auto";
}

// So that the line is seen, and its card.
export function reveal(index) {
  boxes.children[index]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  card.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function resize(to) {
  zoom = to;
  // A small image is not blown up into fog.
  const fits = Math.min(scroll.clientWidth - 32, picture.naturalWidth * 1.6);
  if (fits > 0) sheet.style.width = `${Math.round(fits * zoom)}px`;
}

picture.addEventListener("load", () => resize(1));

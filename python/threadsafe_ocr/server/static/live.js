// The server's own numbers, asked for while somebody looks.

import * as api from "./api.js";
import { number, text } from "./text.js";

const $ = (selector) => document.querySelector(selector);
// Milliseconds between two looks; and how many of them the curve shows.
const [BUSY, IDLE, SHOWN] = [500, 2000, 60];

let before = null;
let up = null;
const rates = Array(SHOWN).fill(0);

export async function watch() {
  for (;;) {
    let pause = IDLE;
    if (!document.hidden) {
      try {
        const stats = await api.stats({ quiet: true });
        show(stats);
        light(true);
        if (stats.active) pause = BUSY;
      } catch {
        light(false);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function show(stats) {
  const now = { at: performance.now(), pid: stats.pid, ...stats.engine };
  // With several workers the next answer may be another one's.
  const last = before?.pid === now.pid ? before : null;
  before = now;
  $("#live-queue").textContent = number(now.queue_size + now.waiting_for_permit + now.waiting_for_room, 0);
  const runs = last ? now.run_size.count - last.run_size.count : 0;
  const mean = runs ? (now.run_size.sum - last.run_size.sum) / runs : now.run_size.mean;
  $("#live-batch").textContent = mean ? number(mean) : "–";
  const rate = last ? (1000 * (now.answered - last.answered)) / (now.at - last.at) : 0;
  rates.push(rate);
  rates.shift();
  $("#live-throughput").textContent = number(rate);
  draw();
  const { p50, p99 } = stats.seconds ?? {};
  $("#live-latency").textContent = p50 === undefined ? "–" : `${number(p50, 2)} / ${text("seconds", { value: number(p99, 2) })}`;
}

function draw() {
  const top = Math.max(...rates, 1);
  const points = rates.map((rate, index) => `${(120 * index) / (SHOWN - 1)} ${30 - (28 * rate) / top}`);
  $("#spark path").setAttribute("d", `M${points.join("L")}`);
}

function light(on) {
  up = on;
  $("#light").className = on ? "up" : "down";
  $("#light").textContent = text(on ? "up" : "down");
}

document.addEventListener("language", () => up !== null && light(up));

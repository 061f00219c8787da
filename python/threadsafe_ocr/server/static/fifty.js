// The promise, seen: the same page fifty times at once, and every answer compared with the one read alone, character by character.

import * as api from "./api.js";
import { kindOf, number, text } from "./text.js";

const TOTAL = 50;
const $ = (selector) => document.querySelector(selector);

// say: what goes to the status. Ends when all are there.
export async function fire(file, say) {
  const cells = Array.from({ length: TOTAL }, () => document.createElement("li"));
  $("#cells").replaceChildren(...cells);
  $("#answers").hidden = false;
  say(text("fifty_alone"));
  const counts = { done: 0, same: 0, other: 0, failed: 0, again: 0, inside: 0, most: 0, why: "" };
  let alone;
  try {
    alone = await (await api.read(file)).text();
  } catch (error) {
    say(text("fifty_failed", { failed: 1, total: 1, why: text(kindOf(error)) }));
    return counts;
  }
  const start = performance.now();
  // A browser keeps few connections to one server, six as a rule; the server's own count says how many there were.
  const watching = setInterval(async () => {
    const stats = await api.stats({ quiet: true }).catch(() => null);
    counts.most = Math.max(counts.most, stats?.active ?? 0);
  }, 300);
  await Promise.all(
    cells.map(async (cell) => {
      try {
        const same = (await patiently(file, counts)) === alone;
        counts[same ? "same" : "other"] += 1;
        cell.className = same ? "same" : "other";
      } catch (error) {
        counts.failed += 1;
        counts.why = text(kindOf(error));
        cell.className = "failed";
      }
      counts.done += 1;
      $("#answers-text").textContent = text("fifty_running", { ...counts, total: TOTAL });
    }),
  );
  clearInterval(watching);
  say(sentence(counts, (performance.now() - start) / 1000));
  return counts;
}

function sentence(counts, seconds) {
  const values = { ...counts, total: TOTAL, seconds: number(seconds), most: Math.max(counts.most, 1) };
  const key = counts.failed ? "fifty_failed" : counts.other ? "fifty_unequal" : "fifty_equal";
  return text(key, values) + (counts.again ? ` ${text("fifty_again", { count: counts.again })}` : "");
}

// A full queue is no answer: it is asked again when the server says so.
async function patiently(file, counts) {
  for (;;) {
    try {
      return await (await api.read(file)).text();
    } catch (error) {
      if (![429, 503].includes(error.status) || !error.wait) throw error;
      counts.again += 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.wait));
    }
  }
}

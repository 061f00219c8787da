// The promise, seen: the same page fifty times at once, and every answer compared with the one read alone, character by character.

import * as api from "./api.js";
import { kindOf, number, put, text } from "./text.js";

const TOTAL = 50;
const $ = (selector) => document.querySelector(selector);

// say: what goes to the status, too. Ends when all are there.
export async function fire(file, say) {
  const show = (key, values) => put($("#answers-text"), key, values);
  const tell = (key, values) => {
    show(key, values);
    say(key, values);
  };
  const cells = Array.from({ length: TOTAL }, () => document.createElement("li"));
  $("#cells").replaceChildren(...cells);
  $("#answers").hidden = false;
  $("#answers-again").hidden = true;
  tell("fifty_alone");
  const counts = { done: 0, same: 0, other: 0, failed: 0, again: 0, inside: 0, most: 0, why: "" };
  let alone;
  try {
    alone = await (await api.read(file)).text();
  } catch (error) {
    return tell("fifty_failed", { failed: 1, total: 1, why: text(kindOf(error)) });
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
      // Changes too often to be read out.
      show("fifty_running", { ...counts, total: TOTAL });
    }),
  );
  clearInterval(watching);
  const seconds = number((performance.now() - start) / 1000);
  const key = counts.failed ? "fifty_failed" : counts.other ? "fifty_unequal" : "fifty_equal";
  tell(key, { ...counts, total: TOTAL, seconds, most: Math.max(counts.most, 1) });
  $("#answers-again").hidden = !counts.again;
  put($("#answers-again"), "fifty_again", { count: counts.again });
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

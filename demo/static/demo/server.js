// Requests to the site, with a time-out, and whether the site can answer.
import { $ } from "./board.js";

const TIMEOUT = 8000; // ms
const AWAY = {
  records: "Cannot reach the record store (Redis).",
  files: "Cannot reach the place of the files.",
  site: "Cannot reach this site.",
};
let seen = Date.now(); // when the site last knew what there is
let away = "";

export const isAway = () => Boolean(away);

// Ask, and return {ok, answer}: what the site says, in JSON.
export async function ask(url, options = {}) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT), ...options });
  return { ok: answer.ok, answer: await answer.json() };
}

export const post = (url, body) => ask(url, { method: "POST", body });

// Ask for the present state. If the site does not know it, say so, and return nothing.
export async function askState(url) {
  try {
    const { ok, answer } = await ask(url);
    if (ok) {
      seen = Date.now();
      tellAway("");
      return answer;
    }
    tellAway(answer.away ?? "site");
  } catch {
    tellAway("site");
  }
  return null;
}

function tellAway(what) {
  if (what !== away) $("away-what").textContent = what && AWAY[what];
  away = what;
  $("away").hidden = !away;
  showSince();
}

export function showSince() {
  if (away) $("away-since").textContent = `Last seen ${Math.round((Date.now() - seen) / 1000)} s ago. What is shown may have gone.`;
}

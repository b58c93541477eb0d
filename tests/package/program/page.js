/** In a browser: sends what came of it home, and goes on to the page that it is told. */

import { compare } from "./compare.js";

const result = await compare(() =>
  new Worker(new URL("./rank.js", import.meta.url), { type: "module" })
).catch((error) => ({ error: String(error) }));
const answer = await fetch("/report", { method: "POST", body: JSON.stringify(result) });
const next = await answer.text();
if (next) location.href = next;

/** A page that runs tests, itself or in a worker, as its address says. */

import { createHome } from "./home.ts";
import { runTests } from "./run.ts";

const { location } = globalThis as unknown as {
  readonly location: { readonly search: string; readonly replace: (address: string) => void };
};
const { entries, where, filter } = Object.fromEntries(new URLSearchParams(location.search));

// Whoever runs the tests: once they are over home says where to go.
fetch("/over").then(async (answer) => location.replace(await answer.text()));

if (where === "worker") {
  const name = JSON.stringify({ entries, filter });
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name });
  worker.addEventListener("error", ({ message, filename, lineno }) => {
    const reason = `the worker failed: ${message} (${filename}:${lineno})`;
    createHome().say({ kind: "broken", reason });
  });
} else await runTests(entries.split(","), filter);

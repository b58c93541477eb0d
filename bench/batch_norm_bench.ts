/** The rows as benchmarks of `deno bench`; `deno task bench` prints them with GB/s. Checked before anything is timed. */

import { allRows } from "./rows.ts";

const rows = allRows();
for (const { check } of rows) await check();

const groups = new Set<string>();
for (const { group, name, run } of rows) {
  // deno bench waits only for what is declared async, and waiting costs a synchronous row a microtask.
  const first = run();
  const fn = first instanceof Promise ? async () => void await run() : () => void run();
  await first;
  Deno.bench({ name, group, baseline: !groups.has(group), fn });
  groups.add(group);
}

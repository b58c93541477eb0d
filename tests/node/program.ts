/**
 * The suites of groups and devices as a program of Node, bundled with its worker ./rank.ts: prints a line of JSON per test.
 * `node program.js '{"everything":false}'`.
 */

import process from "node:process";
import { groupTests } from "./groups.ts";
import { deviceTests } from "./devices.ts";
import type { Outcome, Plan } from "./plan.ts";

const plan: Plan = JSON.parse(process.argv[2]);
const tests: (readonly [string, () => void | Promise<void>])[] = [];
const register = (name: string, body: () => void | Promise<void>) => void tests.push([name, body]);
groupTests(register, plan);
await deviceTests(register, plan);
for (const [name, body] of tests) {
  const start = performance.now();
  let error: string | null = null;
  try {
    await body();
  } catch (thrown) {
    error = String((thrown as Error).stack ?? thrown);
  }
  console.log(JSON.stringify({ name, ms: performance.now() - start, error } satisfies Outcome));
}
process.exit(0); // Dawn's instance would keep it alive.

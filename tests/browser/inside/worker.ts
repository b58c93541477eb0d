/** A worker that runs the tests that its name tells. */

import { runTests } from "./run.ts";

const { name } = globalThis as unknown as { readonly name: string };
const { entries, filter } = JSON.parse(name);
await runTests(entries.split(","), filter);

/** Runs the tests that entries register, and tells what came of each. */

import { TESTS } from "./deno.ts";
import { createHome } from "./home.ts";
import type { Told } from "./told.ts";

/** A test that takes longer than this hangs, in ms. */
const LIMIT_MS = 60_000;

/** What this scope reports by itself: every test must have an end without it. */
interface Scope {
  addEventListener(
    type: "unhandledrejection" | "error",
    listener: (event: {
      readonly reason?: unknown;
      readonly message?: string;
      readonly preventDefault: () => void;
    }) => void,
  ): void;
}

/** Runs all tests of entries whose names hold a text, one after the other. */
export async function runTests(entries: readonly string[], filter: string): Promise<void> {
  const home = createHome();
  const stray: string[] = [];
  (globalThis as unknown as Scope).addEventListener(
    "unhandledrejection",
    ({ reason }) => stray.push(`a rejection that nobody handled: ${written(reason)}`),
  );
  (globalThis as unknown as Scope).addEventListener(
    "error",
    (event) => {
      event.preventDefault(); // Else it is this worker's end for the page.
      stray.push(`an error that nobody caught: ${event.message}`);
    },
  );
  try {
    for (const entry of entries) {
      const before = TESTS.length;
      await import(`../entries/${entry}.ts`);
      if (TESTS.length === before) throw new Error(`entries/${entry}.ts registered no test`);
    }
    for (const { name, fn, ignore } of TESTS.filter(({ name }) => name.includes(filter))) {
      const start = performance.now();
      const told = (outcome: Told["outcome"], error?: string) =>
        home.say({
          ...{ kind: "test", name, outcome, ms: performance.now() - start },
          ...(error === undefined ? {} : { error }),
        });
      if (ignore) {
        told("ignored");
        continue;
      }
      try {
        await within(LIMIT_MS, fn);
        await turn(); // What nobody handles is reported at the end of a turn, or of the next.
        const found = stray.splice(0);
        if (found.length > 0) throw new Error(`here or in the test before: ${found.join("; ")}`);
        told("passed");
      } catch (error) {
        told("failed", written(error));
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (stray.length > 0) throw new Error(`in the last test: ${stray.join("; ")}`);
    home.say({ kind: "done" });
  } catch (error) {
    home.say({ kind: "broken", reason: written(error) });
  }
  await home.arrived();
}

async function within(ms: number, body: () => void | Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it hangs: no end within ${ms} ms`)), ms);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A turn of the event loop; a timer would take four milliseconds of it, test after test. */
function turn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** An error with its stack, which has its text in Chromium alone. */
function written(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = `${error.name}: ${error.message}`;
  const { stack = "" } = error;
  return stack.includes(error.message) ? stack : `${text}\n${stack}`;
}

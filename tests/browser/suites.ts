/**
 * Which suites a browser is put to, and where: on a page and in a worker, isolated and open, as each concerns. What of each is
 * left to runtimes with the same engine stands in entries/.
 */

import assert from "node:assert/strict";
import { type BrowserName, hasBrowser } from "./browsers.ts";
import type { Told } from "./inside/told.ts";
import { createModules } from "./modules.ts";
import { type Visit, visit } from "./visit.ts";
import { createWindow, type Window } from "./window.ts";

/** A policy that allows scripts, requests and workers of the page's own addresses, and what is added to script-src. */
function policy(scripts: string): string {
  return `default-src 'none'; script-src 'self' ${scripts}; connect-src 'self'; worker-src 'self'`;
}
const NO_WASM = policy("");
const NO_BLOBS = policy("'wasm-unsafe-eval'");

/**
 * All visits, those that compute and those that mostly wait, for deadlines and for other threads. What takes a kit's tests
 * minutes elsewhere is put to one kind of kit here: its kernels are the same.
 */
const VISITS: Readonly<Record<"computing" | "waiting", readonly Visit[]>> = {
  computing: [
    { entries: ["webgpu"], where: "page" },
    { entries: ["reference"], where: "page", isolated: true },
    { entries: ["wasm", "wasm_here", "ports", "transports", "turns"], where: "page" },
    { entries: ["wasm_threads", "wasm_here", "webgpu_here"], where: "worker", isolated: true },
    { entries: ["transports", "wasm_here"], where: "worker" },
    { entries: ["no_wasm"], where: "page", policy: NO_WASM },
    { entries: ["no_blobs"], where: "worker", isolated: true, policy: NO_BLOBS },
  ],
  waiting: [{ entries: ["workers", "transports", "wasm_here"], where: "page", isolated: true }],
};

/** Registers a test of one kind of visits, with a step for each of them, and in it one for each test that its page runs. */
export async function browserTests(
  browser: BrowserName,
  kind: keyof typeof VISITS,
): Promise<void> {
  const modules = createModules();
  const filter = Deno.env.get("SYNCBN_BROWSER_FILTER");
  Deno.test({
    name: `${browser}: what is ${kind}`,
    ignore: !await hasBrowser(browser),
    fn: async (test) => {
      const window = createWindow(browser);
      try {
        if (kind === "waiting") await failureSteps(test, window, modules);
        for (const visited of VISITS[kind]) {
          await test.step(nameOf(visited), async (test) => {
            const told = visit(window, { ...visited, ...(filter ? { filter } : {}) }, modules);
            for await (const { name, outcome, error } of told) {
              await test.step({
                name,
                ignore: outcome === "ignored",
                fn: () => {
                  if (outcome === "failed") throw new Error(error);
                },
              });
            }
          });
        }
      } finally {
        await window.close();
      }
    },
  });
}

/** The steps that a page's failures arrive. */
async function failureSteps(
  test: Deno.TestContext,
  window: Window,
  modules: ReturnType<typeof createModules>,
): Promise<void> {
  for (const where of ["page", "worker"] as const) {
    await test.step(`a ${where} tells of every test that fails, with its reason`, async () => {
      const all: Told[] = [];
      for await (const told of visit(window, { entries: ["failing"], where }, modules)) {
        all.push(told);
      }
      const [passes, ...failing] = all.slice(0, -1);
      assert.deepEqual([passes.outcome, all.at(-1)?.outcome], ["passed", "ignored"]);
      assert.equal(failing.length, 4);
      for (const { outcome, error = "" } of failing) {
        assert.equal(outcome, "failed");
        assert.match(error, /on purpose/);
      }
    });
    await test.step(`a ${where} that cannot load its tests is an error`, async () => {
      const nowhere = visit(window, { entries: ["nowhere"], where }, modules);
      await assert.rejects(nowhere.next(), /nowhere\.ts/);
    });
  }
}

function nameOf({ entries, where, isolated, policy }: Visit): string {
  const page = isolated ? "an isolated page" : "an open page";
  const place = where === "page" ? `on ${page}` : `in a worker of ${page}`;
  return `${entries.join(", ")}, ${place}${policy === undefined ? "" : " with a policy"}`;
}

/**
 * Which suites a browser is put to, and where: on a page and in a worker, isolated and open, as each concerns. What of each is
 * left to runtimes with the same engine stands in entries/.
 */

import assert from "node:assert/strict";
import { type BrowserName, hasBrowser } from "./browsers.ts";
import type { Told } from "./inside/told.ts";
import { createModules } from "./modules.ts";
import { type Visit, visit } from "./visit.ts";

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

/** Registers a test for each visit of one kind, with a step for each test that its page runs. */
export async function browserTests(
  browser: BrowserName,
  kind: keyof typeof VISITS,
): Promise<void> {
  const ignore = !await hasBrowser(browser);
  const modules = createModules();
  const filter = Deno.env.get("SYNCBN_BROWSER_FILTER");
  if (kind === "waiting") failureTests(browser, ignore, modules);
  for (const visited of VISITS[kind]) {
    const name = `${browser}: ${nameOf(visited)}`;
    Deno.test({
      name,
      ignore,
      fn: async (test) => {
        const told = visit(browser, { ...visited, ...(filter ? { filter } : {}) }, modules);
        for await (const { name, outcome, error } of told) {
          await test.step({
            name,
            ignore: outcome === "ignored",
            fn: () => {
              if (outcome === "failed") throw new Error(error);
            },
          });
        }
      },
    });
  }
}

/** Registers the tests that a page's failures arrive. */
function failureTests(
  browser: BrowserName,
  ignore: boolean,
  modules: ReturnType<typeof createModules>,
): void {
  for (const where of ["page", "worker"] as const) {
    Deno.test({
      name: `${browser}: a ${where} tells of every test that fails`,
      ignore,
      fn: async (test) => {
        const all: Told[] = [];
        for await (const told of visit(browser, { entries: ["failing"], where }, modules)) {
          all.push(told);
        }
        await test.step("all that fail are told, with their reasons", () => {
          const [passes, ...failing] = all.slice(0, -1);
          assert.deepEqual([passes.outcome, all.at(-1)?.outcome], ["passed", "ignored"]);
          assert.equal(failing.length, 4);
          for (const { outcome, error = "" } of failing) {
            assert.equal(outcome, "failed");
            assert.match(error, /on purpose/);
          }
        });
        await test.step("a page that cannot load its tests is an error", async () => {
          const nowhere = visit(browser, { entries: ["nowhere"], where }, modules);
          await assert.rejects(nowhere.next(), /nowhere\.ts/);
        });
      },
    });
  }
}

function nameOf({ entries, where, isolated, policy }: Visit): string {
  const page = isolated ? "an isolated page" : "an open page";
  const place = where === "page" ? `on ${page}` : `in a worker of ${page}`;
  return `${entries.join(", ")}, ${place}${policy === undefined ? "" : " with a policy"}`;
}

/**
 * `deno task test:browser`: the suites inside real browsers, both side by side, and a last line that counts their tests.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { oneOf, type Program, text } from "../../examples/command_line.ts";
import { runProgram } from "../../examples/run_program.ts";

interface Options {
  readonly browser: "both" | "chromium" | "firefox";
  readonly filter: string | undefined;
}

const PROGRAM: Program<Options> = {
  usage: "deno task test:browser",
  action: "test in browsers",
  about: `\
Puts the reference device, Wasm, WebGPU and groups of workers to their suites inside Chromium and
Firefox, on pages and in workers, isolated and open, with policies and without. A browser that is
not installed is left out, and counts as ignored, unless SYNCBN_DEMAND names it. Types are not
checked here: deno task ok does it.`,
  flags: {
    browser: oneOf(["both", "chromium", "firefox"], { usual: "both", help: "which" }),
    filter: text({ takes: "TEXT", usual: undefined, help: "only tests with this in their name" }),
  },
  notes: "Exits with 1 if a test fails.",
};

/**
 * Adds up what `deno test` says of the steps, or of tests without any, of all its files. Each visit is a step too: that it was
 * made to its end, and nothing failed in it.
 */
export function countSteps(report: string): string {
  const lines = stripVTControlCharacters(report).split("\n");
  const last = lines.findLast((line) => /^(ok|FAILED) \| \d+ passed/.test(line)) ?? "";
  const number = (what: string) => {
    const [, tests = 0, steps] = new RegExp(`(\\d+) ${what}(?: \\((\\d+) steps?\\))?`).exec(last) ??
      [];
    return { tests: Number(tests), steps: Number(steps ?? 0) };
  };
  const [passed, failed, ignored] = ["passed", "failed", "ignored"].map(number);
  // What fails outside of all steps fails a test alone.
  return `${passed.steps} passed, ${Math.max(failed.steps, failed.tests)} failed, ` +
    `${ignored.steps + ignored.tests} ignored`;
}

async function main({ browser, filter }: Options): Promise<number> {
  const browsers = browser === "both" ? ["chromium", "firefox"] : [browser];
  const files = ["", "_waiting"].flatMap((kind) => browsers.map((name) => `${name}${kind}.ts`))
    .map((file) => fileURLToPath(new URL(file, import.meta.url)));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-check", "--permission-set", "--parallel", ...files],
    // One of each kind beside the two that compute.
    env: { DENO_JOBS: "3", ...(filter === undefined ? {} : { SYNCBN_BROWSER_FILTER: filter }) },
    stdout: "piped",
  }).spawn();
  let report = "";
  const decoder = new TextDecoder();
  for await (const bytes of child.stdout) {
    report += decoder.decode(bytes, { stream: true });
    for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
  }
  console.log(countSteps(report));
  return (await child.status).code;
}

if (import.meta.main) Deno.exit(await runProgram(PROGRAM, Deno.args, main));

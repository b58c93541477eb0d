/**
 * `deno task ok`: all checks that are no tests, in the order in which they fail fastest.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { Program } from "../examples/command_line.ts";
import { runProgram } from "../examples/run_program.ts";
import { pages } from "./pages.ts";

const ROOT = new URL("../", import.meta.url);

const OK: Program<Record<never, never>> = {
  usage: "deno task ok",
  action: "check the sources",
  about: `\
Checks format, lint, types, the compiled kernels, documentation, a dry run of publishing, and that
the published sources compile with TypeScript outside Deno. Stops at the first that fails.`,
  flags: {},
  notes: "Exits with 1 if a check fails, with 2 for any argument or without a permission.",
};

async function main(): Promise<number> {
  const config = await Deno.readTextFile(new URL("deno.json", ROOT));
  const exported = Object.values<string>(JSON.parse(config).exports);
  const checks = [
    ["fmt", "--check"],
    ["lint"],
    // With the examples: tests run code, and leave its types to this.
    ["check", "--doc", "."],
    ["check", "--doc-only", ...await pages()],
    ["task", "kernels"],
    ["doc", "--lint", ...exported],
    // Types have been checked by then; what is slow to check of the published ones is told all the same.
    ["publish", "--no-check", "--dry-run", "--allow-dirty", "--quiet"],
    ["run", "--allow-all", "tests/typescript/check.ts"],
  ];
  for (const args of checks) {
    const { code } = await new Deno.Command(Deno.execPath(), {
      ...{ args, cwd: fileURLToPath(ROOT), stdin: "null" },
    }).spawn().status;
    if (code === 0) continue;
    console.error(`deno ${args.join(" ")} has failed, with exit code ${code}`);
    return 1;
  }
  return 0;
}

Deno.exit(await runProgram(OK, Deno.args, main));

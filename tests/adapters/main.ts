/**
 * `deno task test:adapters`: the tests of the adapters, whose frameworks are in a lock of their own, with the files that take
 * longest first.
 *
 * @module
 */

import { type Program, text } from "../../examples/command_line.ts";
import { runProgram } from "../../examples/run_program.ts";
import { exitCode, runTests } from "../run.ts";

interface Options {
  readonly filter: string | undefined;
}

const PROGRAM: Program<Options> = {
  usage: "deno task test:adapters",
  action: "test the adapters",
  about: `\
Trains models of TensorFlow.js and jax-js by ranks, in Deno, in Node and in Chromium, beside one
process. Types are not checked here: deno task ok does it.`,
  flags: {
    filter: text({ takes: "TEXT", usual: undefined, help: "only tests with this in their name" }),
  },
  notes: "Exits with 1 if a test fails.",
};

const FOLDER = "tests/adapters";
const FLAGS = [
  ...["--no-check", "--parallel", `--lock=${FOLDER}/adapters.lock`],
  ...["--allow-read", "--allow-write", "--allow-env", "--allow-sys", "--allow-run", "--allow-ffi"],
  "--allow-net=127.0.0.1",
];
const LONGEST = [
  ...["tfjs_law", "trainer_webgpu", "trainer_law", "node", "tfjs_failures", "jax_page", "jax_docs"],
  ...["types", "jax_webgpu", "jax_law"],
].map((name) => `${name}_cases.ts`);

async function main({ filter }: Options): Promise<number> {
  const names = [...Deno.readDirSync(FOLDER)].map(({ name }) => name).sort();
  const cases = names.filter((name) => name.endsWith("_cases.ts"));
  const files = [...new Set([...LONGEST, ...cases])].map((name) => `${FOLDER}/${name}`);
  const filters = filter === undefined ? [] : [`--filter=${filter}`];
  return exitCode(await runTests([...FLAGS, ...filters, ...files]));
}

Deno.exit(await runProgram(PROGRAM, Deno.args, main));

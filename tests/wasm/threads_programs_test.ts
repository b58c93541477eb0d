/** Teams beside each other, in workers, in programs that forget them, and in bundles. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { openWorkshop } from "./threads_kit.ts";

const PROGRAM = fileURLToPath(new URL("./threads_program.ts", import.meta.url));
const LIMIT_MS = 60_000;
const text = new TextDecoder();

async function output(command: string, args: readonly string[]): Promise<string> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], signal })
    .output();
  assert(success, text.decode(stderr));
  return text.decode(stdout).trim();
}

async function hasNode(): Promise<boolean> {
  try {
    // Since then a built-in module can be had without an import.
    const [major, minor] = (await output("node", ["-p", "process.versions.node"])).split(".");
    return Number(major) > 20 || (Number(major) === 20 && Number(minor) >= 16);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

Deno.test("teams in workers and here do not disturb each other", async () => {
  const [first, second] = await Promise.all([openWorkshop(), openWorkshop({ threads: 3 })]);
  const url = new URL("./threads_worker.ts", import.meta.url);
  const workers = [1, 2].map(() => new Worker(url, { type: "module" }));
  const results = workers.map((worker) =>
    new Promise<unknown>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
    })
  );
  for (let i = 0; i < 1000; i++) {
    first.team.run("add", [[0, 1], [256, 2]]);
    second.team.run("add", [[0, 3], [256, 4], [512, 5]]);
  }
  assert.deepEqual(await Promise.all(results), [[1000, 2000], [1000, 2000]]);
  assert.deepEqual([first.numbers[0], first.numbers[32]], [1000, 2000]);
  assert.deepEqual([0, 32, 64].map((i) => second.numbers[i]), [3000, 4000, 5000]);
  first.team.close();
  second.team.run("add", [[0, 1], [256, 1], [512, 1]]);
  assert.equal(second.numbers[64], 5001);
  second.team.close();
  for (const worker of workers) worker.terminate();
});

Deno.test("a program that does not close its team ends, and needs no permission", async () => {
  const printed = await output(Deno.execPath(), ["run", "--quiet", "--no-prompt", PROGRAM]);
  assert.equal(printed, "[1,2,3]");
});

Deno.test({
  name: "a minified bundle of a team runs and ends in Node",
  ignore: !(await hasNode()),
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const bundle = `${folder}/program.mjs`;
      const args = ["bundle", "--quiet", "--minify", "--platform=browser", "-o", bundle, PROGRAM];
      await output(Deno.execPath(), args);
      assert.equal(await output("node", [bundle]), "[1,2,3]");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

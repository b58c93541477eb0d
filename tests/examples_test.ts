/** Every example of JSDoc runs as printed, in the order of the sources; its types are left to `deno task ok`. */

import assert from "node:assert/strict";
import { type Block, examples, examplesIn, written } from "./pages.ts";

const all = await examples();
const programs = all.filter(({ info }) => info === "ts");
let folder: string | undefined;
let modules: Promise<readonly string[]> | undefined;

/** The address of an example's module; all are written when the first is asked for. */
async function moduleOf(block: Block): Promise<string> {
  folder ??= Deno.makeTempDirSync({ prefix: "syncbn_examples_" });
  modules ??= written(programs, folder);
  return (await modules)[programs.indexOf(block)];
}

Deno.test.afterAll(() => {
  if (folder) Deno.removeSync(folder, { recursive: true });
});

for (const block of programs) {
  Deno.test(`${block.page}:${block.line} runs as printed`, async () => {
    await import(await moduleOf(block));
  });
}

Deno.test("every block of JSDoc is an example that runs, or one that says it does not", () => {
  for (const { page, line, info } of all) {
    assert(["ts", "ts ignore"].includes(info), `${page}:${line} is ${info || "of no language"}`);
  }
  assert(programs.length >= 100, `${programs.length} examples`);
});

Deno.test("examplesIn() sees every block of JSDoc, with its line, and one that never ends", () => {
  const source = [
    "const text = `",
    "```ts",
    "`;",
    "/** One line. */",
    "interface A {",
    "  /**",
    "   * Words.",
    "   *",
    "   * ```ts",
    "   * if (true) {",
    "   *   f();",
    "   * }",
    "   *",
    "   * ```",
    "   * ```ts ignore",
    "   * ```",
    "   */",
  ];
  assert.deepEqual(examplesIn("a.ts", source.join("\n")), [
    { page: "a.ts", line: 9, info: "ts", code: "if (true) {\n  f();\n}\n\n" },
    { page: "a.ts", line: 15, info: "ts ignore", code: "" },
  ]);
  assert.throws(() => examplesIn("a.ts", "\n/**\n * ```ts\n * f();\n */"), /^Error: a\.ts:3 opens/);
});

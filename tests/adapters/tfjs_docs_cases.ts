/** The programs of docs/tfjs.md, as they are printed, with a model in the place of the reader's. */

import assert from "node:assert/strict";
import { blocksIn, textOf } from "../pages.ts";

const MODEL = `
export const makeModel = (tf) => tf.sequential({ layers: [
  tf.layers.dense({ units: 8, inputShape: [4], useBias: false }),
  tf.layers.batchNormalization(),
  tf.layers.dense({ units: 1 }),
] });
export const makeRows = (tf) => [tf.randomNormal([96, 4], 0, 1, "float32", 1), tf.randomNormal([96, 1], 0, 1, "float32", 2)];
`;

Deno.test("docs/tfjs.md trains on 4 workers as printed, its worker in 15 lines from the model on", async () => {
  const page = "docs/tfjs.md";
  const { exports }: { exports: Record<string, string> } = JSON.parse(await textOf("deno.json"));
  const root = new URL("../../", import.meta.url);
  const folder = await Deno.makeTempDir({ prefix: "syncbn_tfjs_" });
  try {
    const programs = blocksIn(page, await textOf(page))
      .map(({ code }) => ({ name: /^\/\/ (\S+\.ts)\n/.exec(code)?.[1], code }));
    const named = programs.filter(({ name }) => name !== undefined);
    assert.deepEqual(named.map(({ name }) => name), ["tfjs_main.ts", "tfjs_rank.ts"]);
    const [, { code }] = named;
    assert(code.slice(code.indexOf("serveRank(")).trimEnd().split("\n").length <= 15);
    for (const { name, code } of named) {
      const resolved = code.replace(
        /"@syncbn\/syncbn(\/[a-z]+)?"/g,
        (_, entry = "") => `"${new URL(exports[`.${entry}`], root)}"`,
      );
      await Deno.writeTextFile(`${folder}/${name}`, resolved);
    }
    await Deno.writeTextFile(`${folder}/tfjs_model.ts`, MODEL);
    const lock = new URL("adapters.lock", import.meta.url).pathname;
    const { code: exit, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      // Without checking: the reader's model has no types here.
      args: [
        ...["run", "--quiet", "--no-check", `--config=${root.pathname}deno.json`, `--lock=${lock}`],
        ...["--allow-read", "--allow-env", "--allow-sys", `${folder}/tfjs_main.ts`],
      ],
      cwd: root.pathname,
      env: { NO_COLOR: "1" },
    }).output();
    const text = new TextDecoder();
    assert.equal(exit, 0, text.decode(stderr));
    const losses = /\[([^\]]*)\]\s*$/.exec(text.decode(stdout))?.[1].split(",").map(Number) ?? [];
    assert.equal(losses.length, 4, text.decode(stdout));
    assert(losses.every((loss) => loss > 0 && loss === losses[0]), String(losses));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

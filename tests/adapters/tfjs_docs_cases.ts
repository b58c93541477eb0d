/** The programs of docs/tfjs.md, as they are printed, with a model in the place of the reader's. */

import assert from "node:assert/strict";
import { numbersIn, programsOf, withPrograms } from "./docs_programs.ts";

const MODEL = `
export const makeModel = (tf) => tf.sequential({ layers: [
  tf.layers.dense({ units: 8, inputShape: [4], useBias: false }),
  tf.layers.batchNormalization(),
  tf.layers.dense({ units: 1 }),
] });
export const makeRows = (tf) => [tf.randomNormal([96, 4], 0, 1, "float32", 1), tf.randomNormal([96, 1], 0, 1, "float32", 2)];
`;

Deno.test("docs/tfjs.md trains on 4 workers as printed, its worker in 15 lines from the model on", async () => {
  const programs = await programsOf("docs/tfjs.md");
  assert.deepEqual([...programs.keys()], ["tfjs_main.ts", "tfjs_rank.ts", "tfjs_penalty.ts"]);
  const rank = programs.get("tfjs_rank.ts")!;
  assert(rank.slice(rank.indexOf("serveRank(")).trimEnd().split("\n").length <= 15);
  // The reader's model has no types here.
  await withPrograms(new Map([...programs, ["tfjs_model.ts", MODEL]]), async (run) => {
    const losses = numbersIn(await run("run", "tfjs_main.ts"));
    assert.equal(losses.length, 4);
    assert(losses.every((loss) => loss > 0 && loss === losses[0]), String(losses));
    // A step against the gradient makes the penalized loss smaller.
    const [before, after] = numbersIn(await run("run", "tfjs_penalty.ts"));
    assert(after < before, `${before}, then ${after}`);
  });
});

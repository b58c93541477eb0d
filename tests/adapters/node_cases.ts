/** Two ranks in workers of Node 20, 22 and 24 train as plain TensorFlow.js does, all of it from npm. */

import assert from "node:assert/strict";
import { bundleForNode, has, inFolder, install, nodePackages, succeed } from "../node/node.ts";
import type { Compared } from "./node_program.ts";

const TFJS = { "@tensorflow/tfjs": "4.22.0" };
/** As in tfjs_law_cases.ts. */
const CLOSE = 1e-5;

function assertClose(actual: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => {
    const apart = Math.abs(value - expected[i]);
    assert(apart <= CLOSE, `${what} is ${apart} apart`);
  });
}

Deno.test({
  name: "two ranks in Node train as plain TensorFlow.js does in one process",
  ignore: !await has("npm"),
  fn: (t) =>
    inFolder(async (folder) => {
      await install(folder, { ...nodePackages(), ...TFJS });
      await bundleForNode(`${folder}/program`, [
        new URL("./node_program.ts", import.meta.url),
        new URL("./node_rank.ts", import.meta.url),
      ]);
      for (const name of Object.keys(nodePackages())) {
        await t.step(name, async () => {
          const node = `${folder}/node_modules/${name}/bin/node`;
          const stdout = await succeed(node, ["node_program.js"], `${folder}/program`);
          const all: readonly Compared[] = JSON.parse(stdout.slice(stdout.lastIndexOf("\n") + 1));
          assert.equal(all.length, 2);
          for (const { task, alone, ranks } of all) {
            assert.deepEqual(ranks[0].weights, ranks[1].weights, "the same bits on both ranks");
            for (const own of ranks) {
              assert.equal(own.losses.length, 20);
              assertClose(own.losses, alone.losses, `a loss of ${task.model}`);
              own.weights.forEach((values, i) =>
                assertClose(values, alone.weights[i], `weight ${i} of ${task.model}`)
              );
            }
          }
        });
      }
    }),
});

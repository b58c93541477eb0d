/** Two ranks in workers of Node 20, 22 and 24 train as plain TensorFlow.js does, all of it from npm, on cpu and wasm. */

import assert from "node:assert/strict";
import { bundleForNode, inFolder, link, nodePackages, succeed } from "../node/node.ts";
import { oneOf } from "./tfjs_law.ts";
import type { Trained } from "./tfjs_ranks.ts";
import type { Order } from "./tfjs_worker.ts";

const TFJS = { "@tensorflow/tfjs": "4.22.0", "@tensorflow/tfjs-backend-wasm": "4.22.0" };
/** As in tfjs_law_cases.ts. */
const CLOSE = 1e-5;
/** 6 steps of 16 rows: more of them say nothing more about Node. The third epoch shows what the second has left behind. */
const SIX = { rows: 32, epochs: 3 };
const ORDERS: readonly Order[] = [
  {
    backend: "cpu",
    tasks: [
      { model: "mlp", optimizer: "adam", counts: [11, 5], ...SIX, ours: true },
      { model: "nested", optimizer: "momentum", counts: [5, 11], ...SIX },
    ],
  },
  {
    backend: "wasm",
    tasks: [
      { model: "mlp", optimizer: "momentum", counts: [3, 13], ...SIX },
      { model: "nested", optimizer: "sgd", counts: [9, 7], ...SIX, ours: true },
    ],
  },
];

function assertClose(actual: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => {
    const apart = Math.abs(value - expected[i]);
    assert(apart <= CLOSE, `${what} is ${apart} apart`);
  });
}

Deno.test("two ranks in Node train as plain TensorFlow.js does in one process of Deno", (t) =>
  inFolder(async (folder) => {
    await link(folder, { ...nodePackages(), ...TFJS });
    const programs = ["node_program.ts", "node_rank.ts"];
    await bundleForNode(
      `${folder}/program`,
      programs.map((name) => new URL(name, import.meta.url)),
    );
    for (const name of Object.keys(nodePackages())) {
      await t.step(name, async () => {
        const node = `${folder}/node_modules/${name}/bin/node`;
        const args = ["node_program.js", JSON.stringify(ORDERS)];
        const stdout = await succeed(node, args, `${folder}/program`);
        const ranks: readonly (readonly (readonly Trained[])[])[] = JSON.parse(
          stdout.slice(stdout.lastIndexOf("\n") + 1),
        );
        assert.equal(ranks.length, 2);
        assert.deepEqual(ranks[0].flat().map(({ weights }) => weights), [
          ...ranks[1].flat().map(({ weights }) => weights),
        ], "the same bits on both ranks");
        for (const [o, { backend, tasks }] of ORDERS.entries()) {
          for (const [i, task] of tasks.entries()) {
            const one = await oneOf(backend, task);
            const what = `${task.model} on ${backend}`;
            for (const own of ranks.map((orders) => orders[o][i])) {
              assert.equal(own.losses.length, 6);
              assert.equal(own.leaked, 0);
              assertClose(own.losses, one.losses, `a loss of ${what}`);
              own.weights.forEach((values, w) =>
                assertClose(values, one.weights[w], `weight ${w} of ${what}`)
              );
            }
          }
        }
      });
    }
  }));

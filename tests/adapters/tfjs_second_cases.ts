/**
 * Gradients of gradients through the layer for TensorFlow.js: those of its own operations, whatever is seen along which axis, and
 * the law, k ranks equal one.
 */

import assert from "node:assert/strict";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { syncBatchNorm } from "../../lib/adapters/tfjs.ts";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { inProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { normal, type Tf } from "./tfjs_models.ts";
import { type Case, ours, penalized, WAYS } from "./tfjs_second.ts";
import type { Found } from "./tfjs_second_worker.ts";

const [alone] = inProcessGroup(1);

/** The formula in operations of TensorFlow.js, which it differentiates twice itself. */
function formula(tf: Tf, along: number) {
  return (x: Tf, gamma: Tf | null, beta: Tf | null): Tf => {
    const at = along < 0 ? along + x.rank : along;
    const axes = [...x.shape.keys()].filter((i) => i !== at);
    const vector = x.shape.map((extent: number, i: number) => i === at ? extent : 1);
    const centred = tf.sub(x, tf.mean(x, axes, true));
    const variance = tf.mean(tf.mul(centred, centred), axes, true);
    let y = tf.div(centred, tf.sqrt(tf.add(variance, 1e-3)));
    if (gamma) y = tf.mul(y, gamma.reshape(vector));
    return beta ? tf.add(y, beta.reshape(vector)) : y;
  };
}

/** Float32 sums in another order; the largest terms are of the size of the largest gradient. */
function assertClose(own: Float32Array, other: ArrayLike<number>, what: string): void {
  assert.equal(own.length, other.length, what);
  const largest = Math.max(1, ...Array.from(other, Math.abs));
  const apart = Math.max(0, ...own.map((value, i) => Math.abs(value - other[i])));
  assert(apart <= 2e-5 * largest, `${what}: ${apart} apart, of ${largest}`);
}

const KINDS = [[true, true], [true, false], [false, true], [false, false]] as const;

Deno.test("gradients of gradients are those of TensorFlow.js's own operations, along every axis, of ranks 2 to 5", async () => {
  await using device = await wasmDevice();
  for (const backend of ["cpu", "wasm"] as const) {
    const tf = await loadTf(backend);
    const before = tf.memory().numTensors;
    let seen = 0;
    for (const inner of [[4], [3, 4], [4, 2, 3], [3, 2, 2, 2]]) {
      // Rows are no channels where ranks share them out.
      for (const axis of [-1, ...inner.map((_, i) => i + 1)]) {
        const [scale, center] = KINDS[seen++ % KINDS.length];
        const task: Case = { counts: [6], inner, axis, scale, center };
        const theirs = tf.tidy(() => penalized(tf, formula(tf, axis), task, null));
        for (const own of [undefined, device]) {
          const found = tf.tidy(() => penalized(tf, ours(tf, axis, alone, own), task, null));
          found.forEach((gradient: Float32Array, i: number) =>
            assertClose(gradient, theirs[i], `${backend} ${JSON.stringify(task)} by ${i}`)
          );
        }
      }
    }
    assert.equal(tf.memory().numTensors, before, "tensors left behind");
  }
});

const TASKS: readonly Case[] = [
  { counts: [4, 1, 3], inner: [5], axis: -1, scale: true, center: true },
  { counts: [5, 0, 3], inner: [3, 4], axis: 1, scale: true, center: false },
  { counts: [1, 2, 2], inner: [2, 3, 2], axis: -1, scale: false, center: true },
];

Deno.test("gradients of gradients of three ranks are those of one, on cpu and wasm", async () => {
  const worker = new URL("./tfjs_second_worker.ts", import.meta.url);
  const ranks = await spawnWorkers<readonly Case[], Found>(worker, 3, {
    ...{ wait: "block", parameter: TASKS },
  });
  for (const [t, task] of TASKS.entries()) {
    const tf = await loadTf("cpu");
    const one = penalized(tf, formula(tf, task.axis), task, null);
    for (const [w, { backend, kernels }] of WAYS.entries()) {
      const what = `${JSON.stringify(task)} on ${backend} by ${kernels}`;
      const found = ranks.map((own) => own[w][t]);
      const rows = found.flatMap(([byX]) => [...byX]);
      assertClose(Float32Array.from(rows), one[0], `${what}, by x`);
      one.slice(1).forEach((whole, i) => {
        const sum = whole.map((_, c) => found.reduce((all, own) => all + own[1 + i][c], 0));
        assertClose(sum, whole, `${what}, by vector ${i}`);
      });
    }
  }
});

Deno.test("gradients of gradients are differences of gradients", async () => {
  await using device = await wasmDevice();
  const tf = await loadTf("cpu");
  const [x, v] = [1, 2].map((seed) => tf.tensor(normal(18, seed), [6, 3]));
  const gamma = tf.tensor([1, 2, -1]);
  for (const own of [undefined, device]) {
    const norm = ours(tf, -1, alone, own);
    const slope = tf.grad((x: Tf) => norm(x, gamma, null).sin().mul(x).sum());
    const along = tf.grad((x: Tf) => slope(x).mul(v).sum())(x); // The Hessian is symmetric.
    const step = 1e-2;
    const [after, before] = [step, -step].map((by) => slope(x.add(v.mul(by))));
    const differences = after.sub(before).div(2 * step).dataSync();
    const largest = Math.max(...differences.map(Math.abs));
    // The step's square, and what rounding of float32 makes of a small difference.
    const apart = Math.max(...along.sub(tf.tensor(differences, [6, 3])).abs().dataSync());
    assert(apart < 2e-3 * largest && largest > 0.1, `${apart} apart, of ${largest}`);
  }
});

Deno.test("a third derivative is refused by a sentence, and one of them alone is as it was", async () => {
  const tf = await loadTf("cpu");
  const x = tf.tensor(normal(12, 1, 2), [4, 3]);
  const y = (x: Tf) => syncBatchNorm(tf, x, {}, alone).y.square().mul(x).sum();
  const second = tf.grad((x: Tf) => tf.grad(y)(x).square().sum());
  assert.throws(
    () => tf.grad((x: Tf) => second(x).square().sum())(x),
    /Cannot differentiate the batch norm as its third derivative must not be asked for/,
  );
  const once = tf.grad(y)(x).dataSync();
  const within: Float32Array[] = [];
  tf.grad((x: Tf) => {
    const dx = tf.grad(y)(x);
    within.push(dx.dataSync());
    return dx.sum();
  })(x);
  assertClose(within[0], once, "a first derivative that is to be differentiated");
});

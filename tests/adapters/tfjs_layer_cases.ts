/** One layer: its gradients beside those of TensorFlow.js's own operations, and what it refuses. */

import assert from "node:assert/strict";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { syncBatchNorm } from "../../lib/adapters/tfjs.ts";
import { type BlockingGroup, inProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { most, normal, type Tf } from "./tfjs_models.ts";

const tf: Tf = await loadTf("cpu");
const [alone] = inProcessGroup(1);
const [cannotBlock] = inProcessGroup(2, { timeoutMs: 1000 });

/** The formula in operations of TensorFlow.js, which it differentiates itself. */
function formula(x: Tf, gamma: Tf | null, beta: Tf | null, axis: number): Tf {
  const at = axis < 0 ? axis + x.rank : axis;
  const axes = [...x.shape.keys()].filter((i) => i !== at);
  const vector = x.shape.map((extent: number, i: number) => i === at ? extent : 1);
  const { mean, variance } = tf.moments(x, axes, true);
  let y = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-3)));
  if (gamma) y = tf.mul(y, gamma.reshape(vector));
  return beta ? tf.add(y, beta.reshape(vector)) : y;
}

const SHAPES = [[7, 4], [5, 3, 4], [3, 4, 2, 3], [2, 3, 2, 4, 3]];

Deno.test("syncBatchNorm() has the formula's gradients along every axis, of ranks 2 to 5, with and without scale and offset", async () => {
  await using device = await wasmDevice();
  const before = tf.memory().numTensors;
  tf.tidy(() => {
    for (const shape of SHAPES) {
      const size = shape.reduce((a, b) => a * b);
      const [x, w] = [1, 2].map((seed) => tf.tensor(normal(size, seed, 2, 3), shape));
      for (let axis = -1; axis < shape.length; axis++) {
        const channels = shape.at(axis) ?? 0;
        const vectors = [3, 4].map((seed) => tf.tensor(normal(channels, seed, 1, 1)));
        for (const [has, hasnt] of [[true, true], [true, false], [false, true], [false, false]]) {
          const [gamma, beta] = [has ? vectors[0] : null, hasnt ? vectors[1] : null];
          const given = [x, gamma, beta].filter((tensor) => tensor !== null);
          const loss =
            (make: (x: Tf, gamma: Tf | null, beta: Tf | null) => Tf) => (...all: Tf[]) => {
              const [x, ...rest] = all;
              return tf.sum(tf.mul(w, make(x, gamma && rest[0], beta && rest[gamma ? 1 : 0])));
            };
          const theirs = tf.grads(loss((x, gamma, beta) => formula(x, gamma, beta, axis)))(given);
          for (const own of [{}, { device }]) {
            const ours = tf.grads(
              loss((x, gamma, beta) =>
                syncBatchNorm(tf, x, { gamma, beta }, alone, { axis, ...own }).y
              ),
            )(given);
            // Both in float32; the terms are about 10.
            ours.forEach((gradient: Tf, i: number) => {
              const apart = most(gradient, theirs[i]);
              assert(apart < 1e-4, `${shape} axis ${axis} gradient ${i}: ${apart}`);
            });
          }
          const { y, mean, variance, count } = syncBatchNorm(tf, x, { gamma, beta }, alone, {
            axis,
          });
          const moments = tf.moments(
            x,
            [...shape.keys()].filter((i) => i !== (axis + shape.length) % shape.length),
          );
          assert(most(y, formula(x, gamma, beta, axis)) < 1e-5);
          assert(most(mean, moments.mean) < 1e-5 && most(variance, moments.variance) < 1e-4);
          assert.equal(count, size / channels);
        }
      }
    }
  });
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("syncBatchNorm() takes an empty batch, and one of one value as Keras does", () => {
  tf.tidy(() => {
    const empty = tf.zeros([0, 3]);
    const { y, count } = syncBatchNorm(tf, empty, {}, alone);
    assert.deepEqual([y.shape, count], [[0, 3], 0]);
    const one = syncBatchNorm(tf, tf.tensor([[4, 5]]), { beta: tf.tensor([1, 2]) }, alone);
    assert.deepEqual([...one.y.dataSync()], [1, 2]);
  });
});

Deno.test("syncBatchNorm() refuses what it cannot normalize by a sentence", () => {
  const x = tf.zeros([2, 3]);
  const gone = tf.zeros([2, 3]);
  gone.dispose();
  const refused = (body: () => unknown, message: RegExp) => assert.throws(body, message);
  refused(() => syncBatchNorm(tf, gone, {}, alone), /x must be alive/);
  refused(() => syncBatchNorm(tf, tf.zeros([2, 3], "int32"), {}, alone), /dtype "float32".*int32/);
  refused(() => syncBatchNorm(tf, x, {}, alone, { axis: 2 }), /axis must be one/);
  refused(() => syncBatchNorm(tf, tf.zeros([3]), {}, alone), /rank >= 2/);
  refused(
    () => syncBatchNorm(tf, x, { gamma: tf.zeros([2]) }, alone),
    /gamma must be of shape \(3\)/,
  );
  refused(() => syncBatchNorm(tf, x, {}, cannotBlock), /^TypeError: Cannot hold up the thread/);
  refused(() => syncBatchNorm(tf, null as Tf, {}, alone), /x must be a tf.Tensor/);
  refused(() => syncBatchNorm({} as Tf, x, {}, alone), /first argument must be TensorFlow.js/);
  refused(
    () => syncBatchNorm(tf, x, {}, alone, { device: {} as Tf }),
    /device must be one of wasmDevice/,
  );
  refused(() => syncBatchNorm(tf, x, {}, {} as Tf), /worldSize, allReduceBlocking/);
});

Deno.test("syncBatchNorm() tells the others of what fails before a collective, there and back", async () => {
  const told: string[] = [];
  const group: BlockingGroup = {
    worldSize: 2,
    allReduceBlocking: (local, combine, { label = "" } = {}) => {
      try {
        const make = local as () => Float64Array;
        return combine(make(), make());
      } catch (error) {
        told.push(`${label}: ${(error as Error).message}`);
        throw error;
      }
    },
  };
  const x = tf.ones([2, 3]);
  const given = { label: "here", device: await wasmDevice() };
  const y = (x: Tf) => syncBatchNorm(tf, x, {}, group, given).y;
  assert.throws(() =>
    tf.grad((x: Tf) => {
      const normalized = y(x);
      given.device[Symbol.dispose]();
      return normalized.sum();
    })(x)
  );
  assert.throws(() => y(x));
  assert.equal(told.length, 2, String(told));
  assert.match(told[0], /^tfjs batch norm backward here C=3: Cannot /);
  assert.match(told[1], /^tfjs batch norm forward here C=3: Cannot /);
});

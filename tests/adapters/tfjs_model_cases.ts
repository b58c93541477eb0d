/** Whole models before they train: conversion, files, and what is refused. */

import assert from "node:assert/strict";
import {
  broadcastWeights,
  convertSyncBatchNorm,
  createTrainer,
  replicate,
  revertSyncBatchNorm,
  shareOf,
  syncBatchNorm,
} from "../../lib/adapters/tfjs.ts";
import { inProcessGroup, referenceDevice } from "../../mod.ts";
import { savedOf } from "./tfjs_files.ts";
import { loadTf } from "./tfjs_load.ts";
import { dataOf, most, normal, SPECS, type Tf } from "./tfjs_models.ts";

const tf: Tf = await loadTf("cpu");
const [alone] = inProcessGroup(1);
const [cannotBlock] = inProcessGroup(2, { timeoutMs: 1000 });

Deno.test("float16, and tensors whose backend was removed, are refused by a sentence", async () => {
  const x = tf.zeros([2, 3]);
  const half = new Proxy(x, {
    get: (target, name) => name === "dtype" ? "float16" : Reflect.get(target, name, target),
  });
  assert.throws(() => syncBatchNorm(tf, half, {}, alone), /dtype "float32".*"float16"; cast it/);

  const { model, rows } = await onBackendThatGoes();
  const gone = /must lie on a backend that is there: current tensor's was removed; make it anew/;
  assert.throws(() => syncBatchNorm(tf, rows, {}, alone), gone);
  assert.throws(() => syncBatchNorm(tf, tf.zeros([2, 10]), { gamma: rows.gamma }, alone), gone);
  await assert.rejects(convertSyncBatchNorm(tf, model, alone), gone);
  const converted = await convertSyncBatchNorm(tf, SPECS.mlp.make(tf), alone);
  converted.compile({ optimizer: "sgd", loss: "meanSquaredError" });
  replicate(tf, converted, alone);
  const targets = tf.zeros([2, 1]);
  await assert.rejects(converted.fit(rows, targets, { verbose: 0 }), gone);
  await assert.rejects(converted.trainOnBatch(rows, targets), gone);
  const options = { group: alone, device: referenceDevice() };
  const plain = SPECS.mlp.make(tf);
  plain.compile({ optimizer: "sgd", loss: "meanSquaredError" });
  await assert.rejects(createTrainer(tf, plain, options).step(rows, targets), gone);
});

/** Rows, a vector and a model on a backend that is removed after they were made. */
async function onBackendThatGoes(): Promise<{ readonly model: Tf; readonly rows: Tf }> {
  const made = { rows: tf.ones([2, 10]), gamma: tf.ones([10]), model: SPECS.mlp.make(tf) };
  const factory = tf.findBackendFactory("cpu");
  tf.removeBackend("cpu");
  tf.registerBackend("cpu", factory);
  await tf.setBackend("cpu");
  return { model: made.model, rows: Object.assign(made.rows, { gamma: made.gamma }) };
}

Deno.test("a replica refuses weights of rows, which TensorFlow.js does not implement", async () => {
  const spec = SPECS.mlp;
  const model = await convertSyncBatchNorm(tf, spec.make(tf), alone);
  model.compile({ optimizer: "sgd", loss: spec.loss });
  replicate(tf, model, alone);
  const { x, y } = dataOf(tf, spec, 4);
  const sampleWeight = tf.ones([4]);
  const refusal =
    /with weights of rows, sampleWeight, as TensorFlow.js 4\.22 does not implement them: .*; give classWeight/;
  await assert.rejects(model.fit(x, y, { sampleWeight, verbose: 0 }), refusal);
  const validationData = [x, y, sampleWeight];
  await assert.rejects(model.fit(x, y, { validationData, verbose: 0 }), refusal);
  assert.throws(() => model.evaluate(x, y, { sampleWeight }), refusal);
  await model.fit(x, y, { verbose: 0 }); // It is as good as before.
});

for (const [name, spec] of Object.entries(SPECS)) {
  Deno.test(`convertSyncBatchNorm() of the model "${name}" changes nothing that Keras knows, before and after training`, async () => {
    const model = spec.make(tf);
    model.setWeights(
      model.getWeights().map((weight: Tf, i: number) =>
        tf.tensor(normal(weight.size, 40 + i, 0.3, 1), weight.shape)
      ),
    );
    const frozen = model.layers.find(({ layers, weights }: Tf) => !layers && weights.length > 0);
    frozen.trainable = false;
    const { x, y } = dataOf(tf, spec, 12);
    const converted = await convertSyncBatchNorm(tf, model, alone);
    const names = (of: Tf) => of.weights.map(({ originalName }: Tf) => originalName);
    assert.deepEqual(names(converted), names(model));
    assert.deepEqual(converted.toJSON(null, false), model.toJSON(null, false));
    assert.equal(converted.trainableWeights.length, model.trainableWeights.length);
    if (spec.plain) assert.equal(most(converted.predict(x), model.predict(x)), 0);
    const before = model.getWeights().map((weight: Tf) => [...weight.dataSync()]);

    converted.compile({ optimizer: "sgd", loss: spec.loss });
    replicate(tf, converted, alone);
    await converted.fit(x, y, { epochs: 1, verbose: 0 });
    const loaded = await tf.loadLayersModel(tf.io.fromMemory(await savedOf(tf, converted)));
    converted.getWeights().forEach((weight: Tf, i: number) =>
      assert.equal(most(weight, loaded.getWeights()[i]), 0)
    );
    if (spec.plain) assert.equal(most(converted.predict(x), loaded.predict(x)), 0);
    const after = model.getWeights().map((weight: Tf) => [...weight.dataSync()]);
    assert.deepEqual(after, before, "the given model is untouched");

    const reverted = await revertSyncBatchNorm(tf, converted);
    const own = (layer: Tf): boolean =>
      Object.hasOwn(layer, "call") || (layer.layers ?? []).some(own);
    assert(own(converted) && !own(reverted));
    if (spec.plain) assert.equal(most(reverted.predict(x), converted.predict(x)), 0);
  });
}

const ALONG: readonly { readonly shape: readonly number[]; readonly axis: number }[] = [
  { shape: [3, 4], axis: 1 },
  { shape: [3, 2, 2, 4], axis: 1 },
  { shape: [3, 2, 2, 4], axis: -1 },
];

Deno.test("a model along other axes is judged by the formula, where TensorFlow.js's own is wrong or missing", async () => {
  for (const { shape, axis } of ALONG) {
    const input = tf.input({ shape: [...shape] });
    const layer = tf.layers.batchNormalization({ axis });
    const model = tf.model({ inputs: input, outputs: layer.apply(input) });
    const channels = model.getWeights()[0].size;
    const [gamma, beta, mean, variance] = [1, 2, 3, 4].map((seed) =>
      tf.tensor(normal(channels, seed, 0.1, 1))
    );
    model.setWeights([gamma, beta, mean, variance]);
    const x = tf.tensor(normal(2 * shape.reduce((a, b) => a * b), 5), [2, ...shape]);
    const vector = x.shape.map((_: number, i: number) =>
      i === (axis < 0 ? x.rank - 1 : axis) ? channels : 1
    );
    const [g, b, m, v] = [gamma, beta, mean, variance].map((t) => t.reshape(vector));
    const wanted = x.sub(m).mul(v.add(1e-3).rsqrt()).mul(g).add(b);
    const converted = await convertSyncBatchNorm(tf, model, alone);
    assert(most(converted.predict(x), wanted) < 1e-5);
  }
});

Deno.test("models, groups and orders of calls that do not fit are refused by a sentence, and nothing is half converted", async () => {
  const spec = SPECS.mlp;
  const without = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [2] })] });
  const unbuilt = tf.sequential({ layers: [] });
  const model = spec.make(tf);
  const refused = (promise: Promise<unknown>, message: RegExp) => assert.rejects(promise, message);
  await refused(convertSyncBatchNorm(tf, without, alone), /must have a BatchNormalization/);
  await refused(convertSyncBatchNorm(tf, unbuilt, alone), /inputShape/);
  await refused(convertSyncBatchNorm(tf, {} as Tf, alone), /tf.LayersModel or a tf.Sequential/);
  await refused(convertSyncBatchNorm(tf, Promise.resolve(model) as Tf, alone), /await it first/);
  await refused(convertSyncBatchNorm(tf, model, cannotBlock), /Cannot hold up the thread/);
  await refused(
    convertSyncBatchNorm(tf, model, alone, { devise: 1 } as Tf),
    /options may be device/,
  );
  await refused(
    convertSyncBatchNorm({ ...tf, engine: () => ({}) }, model, alone),
    /written for 4\.22/,
  );
  assert(model.layers.every((layer: Tf) => !Object.hasOwn(layer, "call")));

  const converted = await convertSyncBatchNorm(tf, model, alone);
  assert.throws(() => replicate(tf, converted, alone), /must be compiled/);
  model.compile({ optimizer: "sgd", loss: spec.loss });
  assert.throws(() => replicate(tf, model, alone), /must be synchronised: the one at 1 /);
  converted.compile({ optimizer: "sgd", loss: spec.loss });
  assert.throws(() => replicate(tf, converted, cannotBlock), /Cannot hold up the thread/);
  assert.throws(
    () => replicate(tf, converted, alone, { whenOut: "go" } as Tf),
    /"stop" or "shadow"/,
  );
  assert(!Object.hasOwn(converted.model, "fit"));
  replicate(tf, converted, alone);
  assert.throws(() => replicate(tf, converted, alone), /must not be a replica yet/);
  assert.throws(() => broadcastWeights(tf, converted, alone, { root: 1 }), /rank below 1/);
});

Deno.test("a sequential model that is compiled anew stays a replica", async () => {
  const model = await convertSyncBatchNorm(tf, SPECS.mlp.make(tf), alone);
  model.compile({ optimizer: "sgd", loss: "meanSquaredError" });
  replicate(tf, model, alone);
  model.compile({ optimizer: "adam", loss: "meanSquaredError" });
  assert(Object.hasOwn(model.model, "fit"));
});

Deno.test("shareOf() hands out every row once, batch by batch", () => {
  const rows = tf.tensor(Float32Array.from({ length: 19 }, (_, i) => i), [19, 1]);
  const parts = [0, 1, 2].map((rank) => [...shareOf(rows, 8, [5, 0, 3], rank).dataSync()]);
  assert.deepEqual(parts, [[0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16], [], [
    5,
    6,
    7,
    13,
    14,
    15,
    17,
    18,
  ]]);
  assert.deepEqual(shareOf([rows, rows], 19, [0, 19], 0).map(({ shape }: Tf) => shape), [[0, 1], [
    0,
    1,
  ]]);
  assert.throws(
    () => shareOf(rows, 8, [5, 2], 0),
    /add up to batchSize: current values are 5 \+ 2 and 8/,
  );
  assert.throws(() => shareOf(rows, 8, [5, 3], 2), /rank must be one below 2/);
  assert.throws(() => shareOf([rows, tf.zeros([3])], 8, [8], 0), /as many rows/);
  assert.throws(() => shareOf([1] as Tf, 8, [8], 0), /must be tf.Tensors/);
});

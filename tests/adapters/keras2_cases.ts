/** A model that was saved while converted, in plain TensorFlow.js and in Keras 2, whose numbers golden/README.md tells of. */

import assert from "node:assert/strict";
import { convertSyncBatchNorm, createTrainer, replicate } from "../../lib/adapters/tfjs.ts";
import { inProcessGroup, referenceDevice, runRanks } from "../../mod.ts";
import { namedWeights, savedOf } from "./tfjs_files.ts";
import { loadTf } from "./tfjs_load.ts";
import type { Tf } from "./tfjs_models.ts";

/** Both sides in float32, six steps: some units of the last place of numbers around 1. */
const CLOSE = 1e-5;

interface Rows {
  readonly values: number[];
  readonly shape: number[];
}

/** What Keras came to. */
interface Keras {
  readonly names: readonly string[];
  readonly predictions: readonly number[];
  readonly losses: readonly number[];
  readonly weights: readonly (readonly number[])[];
  readonly trained: readonly number[];
}

interface Golden {
  readonly modelTopology: object;
  readonly weightSpecs: readonly object[];
  readonly weights: readonly number[];
  readonly x: Rows;
  readonly y: Rows;
  readonly batches: number;
  readonly rate: number;
  readonly keras: Keras;
}

const golden: Golden = JSON.parse(
  await Deno.readTextFile(new URL("golden/keras2.json", import.meta.url)),
);
const { modelTopology, weightSpecs, weights, batches, rate, keras } = golden;
const [alone] = inProcessGroup(1);

function load(tf: Tf): Promise<Tf> {
  const weightData = Float32Array.from(weights).buffer;
  return tf.loadLayersModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }));
}

function assertClose(own: ArrayLike<number>, other: readonly number[], what: string): void {
  assert.equal(own.length, other.length, what);
  other.forEach((value, i) => {
    assert(Math.abs(own[i] - value) <= CLOSE, `${what}: ${own[i]} and ${value}`);
  });
}

const rowsOf = (tf: Tf, { values, shape }: Rows) => tf.tensor(values, shape);
const compiled = { loss: "meanSquaredError" };

/** Calls a body with the batches that Keras was trained on. */
async function eachBatch(tf: Tf, body: (x: Tf, y: Tf) => Promise<void>): Promise<void> {
  const [xs, ys] = [golden.x, golden.y].map((rows) => tf.split(rowsOf(tf, rows), batches));
  for (let epoch = 0; epoch < 2; epoch++) {
    for (const [i, x] of xs.entries()) await body(x, ys[i]);
  }
}

async function assertTrained(tf: Tf, model: Tf, losses: readonly number[]): Promise<void> {
  assertClose(losses, keras.losses, "losses");
  const named = await namedWeights(tf, model);
  for (const [i, name] of keras.names.entries()) {
    assertClose(named.get(name) ?? [], keras.weights[i], name);
  }
  assertClose(model.predict(rowsOf(tf, golden.x)).dataSync(), keras.trained, "after training");
}

Deno.test("a model that was saved while converted predicts in plain TensorFlow.js what it does in Keras 2", async () => {
  const tf = await loadTf("cpu");
  const model = await load(tf);
  assertClose(model.predict(rowsOf(tf, golden.x)).dataSync(), keras.predictions, "predictions");
  // What is saved today is what Keras has read.
  const saved = await savedOf(tf, await convertSyncBatchNorm(tf, model, alone));
  assert.deepEqual(
    [saved.modelTopology, saved.weightSpecs],
    [modelTopology, weightSpecs].map((own) => JSON.parse(JSON.stringify(own))),
  );
  assert.deepEqual([...new Float32Array(saved.weightData)], weights);
});

Deno.test("a converted model goes on as Keras 2 does, by its own trainOnBatch", async () => {
  const tf = await loadTf("cpu");
  const model = await convertSyncBatchNorm(tf, await load(tf), alone);
  model.compile({ ...compiled, optimizer: tf.train.sgd(rate) });
  replicate(tf, model, alone);
  const losses: number[] = [];
  await eachBatch(tf, async (x, y) => void losses.push(await model.trainOnBatch(x, y)));
  await assertTrained(tf, model, losses);
});

Deno.test("trainers of two ranks go on as Keras 2 does", async () => {
  const tf = await loadTf("cpu");
  await runRanks(2, async (group) => {
    const model = await load(tf);
    model.compile({ ...compiled, optimizer: tf.train.sgd(rate) });
    const trainer = createTrainer(tf, model, { group, device: referenceDevice() });
    const losses: number[] = [];
    await eachBatch(tf, async (x, y) => {
      const [rows] = x.shape;
      const [own, others] = [x, y].map((whole) => tf.split(whole, [1, rows - 1])[group.rank]);
      losses.push((await trainer.step(own, others)).loss);
    });
    await assertTrained(tf, model, losses);
  });
});

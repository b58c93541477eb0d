/** What a trainer says of what it cannot train, and what the other ranks hear of a rank that fails. */

import assert from "node:assert/strict";
import { createTrainer, type Trainer, type TrainerOptions } from "../../lib/adapters/tfjs.ts";
import {
  inProcessGroup,
  isCollectiveError,
  type ReferenceArray,
  referenceDevice,
} from "../../mod.ts";
import { census } from "../recording.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Model, rowsOf, SPECS, type Tfjs } from "./trainer_models.ts";
import { compiled, type Plan } from "./trainer_runs.ts";

const PLAN: Plan = { name: "sequential", optimizer: "sgd", batches: [[2, 2]], steps: 1 };
const ROWS = { shape: [4, 10], values: new Float32Array(40).map((_, i) => Math.sin(i)) };
const TARGETS = { shape: [4, 1], values: new Float32Array(4) };

const xsOf = (tf: Tfjs, count = 4) => rowsOf(tf, ROWS, 0, count);
const ysOf = (tf: Tfjs, count = 4) => rowsOf(tf, TARGETS, 0, count);

Deno.test("createTrainer() says what it cannot train, and compiles nothing then", async () => {
  const tf: Tfjs = await loadTf("cpu");
  const [group] = inProcessGroup(1);
  const device = referenceDevice();
  const { layers } = tf;
  const dense = layers.dense({ units: 1, inputShape: [3] });
  const plain = tf.sequential({ layers: [dense] });
  const norm = () => layers.batchNormalization();
  const timed = tf.sequential({
    layers: [layers.timeDistributed({ layer: norm(), inputShape: [null, 3] })],
  });
  const calling = layers.activation({ activation: "relu", inputShape: [3] });
  const hidden = tf.sequential({ layers: [calling] });
  Object.assign(calling, { layer: norm() });
  const fresh = SPECS.sequential.make(tf);
  const training = { loss: "meanSquaredError", optimizer: "sgd" };
  const options = { group, device };
  type Given = Record<string, unknown>;
  const cases: [unknown, unknown, Given, RegExp][] = [
    [null, fresh, options, /first argument must be TensorFlow.js/],
    [tf, null, options, /must be a tf.LayersModel or a tf.Sequential/],
    [tf, Promise.resolve(fresh), options, /is a promise: await it first/],
    [tf, fresh, options, /must be compiled/],
    [tf, tf.sequential({ layers: [] }), options, /give its first layer an inputShape/],
    [tf, plain, { ...options, ...training }, /must have a batch norm: current one has none/],
    [tf, timed, { ...options, ...training }, /the input of ".*" leaves it open/],
    [tf, hidden, { ...options, ...training }, /the Activation ".*" calls one itself/],
    [tf, fresh, { ...options, loss: "meanSquaredError" }, /current options have loss alone/],
    [tf, fresh, { ...options, metrics: ["mae"] }, /current options have metrics alone/],
    [tf, fresh, { ...options, losses: 1 }, /options may be group, device, loss/],
    [tf, fresh, { device, ...training }, /options.group must be { worldSize, allReduce }/],
    [tf, fresh, { group, ...training }, /current value holds no device/],
  ];
  for (const [framework, model, given, text] of cases) {
    assert.throws(
      () => createTrainer(framework as Tfjs, model as never, given as never),
      text,
    );
  }
  for (const model of [plain, timed, hidden, fresh]) {
    assert.equal((model as unknown as { readonly optimizer?: object }).optimizer, undefined);
  }
  // With a loss and an optimizer it compiles; then a step has metrics by name.
  const made = createTrainer(tf, fresh, { ...options, ...training, metrics: ["mae"] });
  const { metrics, rows } = await made.step(xsOf(tf), ysOf(tf));
  assert.deepEqual([Object.keys(metrics), rows], [["mae"], 4]);
});

/** Two ranks that have a trainer each and do their steps; what each step came to. */
async function together(
  body: (trainer: Trainer, rank: number, tf: Tfjs) => Promise<unknown>,
  prepare: (
    options: TrainerOptions<ReferenceArray>,
    rank: number,
    model: Model,
    tf: Tfjs,
  ) => object = (options) => options,
): Promise<readonly unknown[]> {
  const tf: Tfjs = await loadTf("cpu");
  const { device, alive } = census(referenceDevice());
  const trainers = inProcessGroup(2, { timeoutMs: 2000 }).map((group) => {
    const model = compiled(tf, PLAN);
    const options = prepare({ group, device }, group.rank, model, tf);
    return createTrainer(tf, model, options as TrainerOptions<ReferenceArray>);
  });
  const before = tf.memory().numTensors;
  const told = await Promise.all(
    trainers.map((trainer, rank) => body(trainer, rank, tf).catch((error) => error)),
  );
  assert.equal(alive(), 0, "arrays");
  assert.equal(tf.memory().numTensors, before, "tensors");
  return told;
}

Deno.test("step() of a rank that fails is the same error on all ranks, which then go on", async () => {
  const shapes: readonly (readonly number[])[] = [[2, 9], [2, 10]];
  const told = await together(async (trainer, rank, tf) => {
    const wrong = tf.zeros(shapes[rank] as never);
    const [xs, ys] = [xsOf(tf), ysOf(tf)];
    const failed = await trainer.step(wrong, ys).catch((error) => error);
    const { loss } = await trainer.step(xs, ys);
    tf.dispose([wrong, xs, ys]);
    return [isCollectiveError(failed), `${failed.cause?.message}`, loss > 0];
  });
  for (const [collective, cause, went] of told as [boolean, string, boolean][]) {
    assert.deepEqual([collective, went], [true, true]);
    assert.match(cause, /2 examples, each with shape \[9\]/);
  }
});

Deno.test("step() brings what a loss throws, late, to all ranks; nothing has changed then", async () => {
  const models: Model[] = [];
  const weights = () =>
    models.map((model) => model.getWeights().map((weight) => weight.dataSync()));
  const before: unknown[] = [];
  const told = await together(async (trainer, _, tf) => {
    const [xs, ys] = [xsOf(tf), ysOf(tf)];
    const failed = await trainer.step(xs, ys).catch((error) => error);
    tf.dispose([xs, ys]);
    return failed;
  }, (options, rank, model) => {
    models.push(model);
    before.splice(0, 2, ...structuredClone(weights()));
    const loss = (_: object, outputs: object) => {
      if (rank === 1) throw new Error("no loss today");
      return outputs;
    };
    return { ...options, optimizer: "sgd", loss };
  });
  for (const error of told) {
    assert(isCollectiveError(error));
    assert.match(`${error.cause}`, /no loss today/);
  }
  assert.deepEqual(weights(), before);
});

Deno.test("step() needs replicas that are alike, which broadcastWeights() makes them", async () => {
  const told = await together(async (trainer, rank, tf) => {
    const [xs, ys] = [xsOf(tf, 1 + rank), ysOf(tf, 1 + rank)];
    const unlike = await trainer.step(xs, ys).catch((error) => `${error.cause ?? error}`);
    const wrong = await trainer.broadcastWeights(2).catch((error) => `${error.cause ?? error}`);
    await trainer.broadcastWeights(1);
    const busy = trainer.step(xs, ys);
    const second = await trainer.step(xs, ys).catch((error) => error.message);
    const { loss, rows } = await busy;
    tf.dispose([xs, ys]);
    return [unlike, wrong, second, loss, rows];
  }, (options, rank, model, tf) => {
    const [weight, ...others] = model.getWeights();
    const moved = tf.tensor(new Float32Array(weight.size).fill(0.5), weight.shape);
    if (rank === 1) model.setWeights([moved, ...others]);
    moved.dispose();
    return options;
  });
  const [first, other] = told as [string, string, string, number, number][];
  assert.deepEqual(first, other);
  assert.match(first[0], /all ranks must begin with the same weights: current ones differ/);
  assert.match(first[1], /root must be a rank below 2: current value is 2/);
  assert.match(first[2], /what it does must have ended/);
  assert.equal(first[4], 3);
});

Deno.test("step() without rows on any rank is an error on all", async () => {
  const told = await together(async (trainer, _, tf) => {
    const [xs, ys] = [xsOf(tf, 0), ysOf(tf, 0)];
    const failed = await trainer.step(xs, ys).catch((error) => error);
    tf.dispose([xs, ys]);
    return failed;
  });
  for (const error of told) {
    assert.match(`${(error as Error).cause}`, /RangeError: .*current batch has none on any/);
  }
});

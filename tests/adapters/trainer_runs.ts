/** Training of a model by TensorFlow.js alone, and of its replicas by trainers, step by step. */

import { createTrainer } from "../../lib/adapters/tfjs/trainer.ts";
import type { Device, ReduceGroup } from "../../mod.ts";
import { dataOf, type Model, OPTIMIZERS, rowsOf, SPECS, type Tfjs } from "./trainer_models.ts";

/** What is trained. Plain data, as it travels to workers and pages. */
export interface Plan {
  readonly name: keyof typeof SPECS;
  readonly optimizer: keyof typeof OPTIMIZERS;
  /** Rows of each rank, one list for each of the batches, which follow each other again and again. */
  readonly batches: readonly (readonly number[])[];
  readonly steps: number;
}

/** What came of it. */
export interface Outcome {
  /** Loss and metrics of every step. */
  readonly steps: readonly (readonly number[])[];
  /** All weights, moving statistics too, as `getWeights` has them. */
  readonly weights: readonly number[];
  /** Tensors that a step of later ones has left behind. */
  readonly leaked: number;
}

export function compiled(tf: Tfjs, { name, optimizer }: Plan): Model {
  const { make, loss, ...spec } = SPECS[name];
  const model = make(tf);
  const metrics = "metrics" in spec ? spec.metrics : undefined;
  model.compile({ loss, metrics, optimizer: OPTIMIZERS[optimizer](tf) });
  return model;
}

/** Calls a body with this rank's part of each step's batch. */
async function eachBatch(
  tf: Tfjs,
  { name, batches, steps }: Plan,
  rank: number | null,
  body: (xs: ReturnType<typeof rowsOf>[], ys: ReturnType<typeof rowsOf>[]) => Promise<void>,
): Promise<void> {
  const sizes = batches.map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const { xs, ys } = dataOf(SPECS[name], sizes.reduce((sum, size) => sum + size, 0));
  for (let step = 0; step < steps; step++) {
    const i = step % batches.length;
    const before = rank === null ? 0 : batches[i].slice(0, rank).reduce((sum, n) => sum + n, 0);
    const from = sizes.slice(0, i).reduce((sum, size) => sum + size, 0) + before;
    const count = rank === null ? sizes[i] : batches[i][rank];
    const [inputs, targets] = [xs, ys].map((rows) =>
      rows.map((row) => rowsOf(tf, row, from, count))
    );
    await body(inputs, targets);
    tf.dispose([...inputs, ...targets]);
  }
}

async function weightsOf(model: Model): Promise<number[]> {
  const all = await Promise.all(model.getWeights().map((weight) => weight.data()));
  return all.flatMap((values) => [...values]);
}

/** Trains the whole batch by TensorFlow.js itself. */
export async function trainPlain(tf: Tfjs, plan: Plan): Promise<Outcome> {
  const model = compiled(tf, plan);
  const steps: number[][] = [];
  await eachBatch(tf, plan, null, async (xs, ys) => {
    steps.push([await model.trainOnBatch(xs, ys)].flat());
  });
  return { steps, weights: await weightsOf(model), leaked: 0 };
}

/** Trains one rank's part by a trainer. */
export async function trainRank<A>(
  tf: Tfjs,
  plan: Plan,
  { device, group, rank }: {
    readonly device: Device<A>;
    readonly group: ReduceGroup;
    readonly rank: number;
  },
): Promise<Outcome> {
  const model = compiled(tf, plan);
  const trainer = createTrainer(tf, model, { group, device });
  const steps: number[][] = [];
  const tensors: number[] = [];
  await eachBatch(tf, plan, rank, async (xs, ys) => {
    const { loss, metrics } = await trainer.step(xs, ys);
    steps.push([loss, ...Object.values(metrics)]);
    tensors.push(tf.memory().numTensors);
  });
  // The first step makes the optimiser's slots.
  const leaked = tensors.at(-1)! - tensors[Math.min(1, tensors.length - 1)];
  return { steps, weights: await weightsOf(model), leaked };
}

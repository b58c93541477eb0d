/**
 * A network of TensorFlow.js's own layers on the digits, trained by one process or as one rank of several: a worker of
 * `tfjs.ts`.
 *
 * @module
 */

import {
  broadcastWeights,
  convertSyncBatchNorm,
  replicate,
  shareOf,
} from "../lib/adapters/tfjs.ts";
import { serveRank } from "../lib/groups/workers.ts";
import { inProcessGroup, type ProcessGroup } from "../mod.ts";
import { CLASSES, type Digits, type Images, SIDE } from "./digits.ts";
import type { Run } from "./train.ts";

/** What a rank is to do. */
export interface Order {
  readonly digits: Digits;
  readonly epochs: number;
  /** Images of a step, over all ranks. */
  readonly batch: number;
  /** Whose images a batch norm normalizes with; `"plain"` is TensorFlow.js without syncbn. */
  readonly norm: "plain" | "sync" | "local";
}

/** A development dependency that the project's own lock does not name; in a program of yours, a plain import. */
const tf = await import("npm:@tensorflow/tfjs@4.22.0" as string);
await tf.setBackend("cpu"); // On wasm its convolutions have no gradient.

function network() {
  const { conv2d, batchNormalization, activation, flatten, dense } = tf.layers;
  const first = (seed: number) => tf.initializers.glorotUniform({ seed });
  const conv = (filters: number, seed: number, more = {}) =>
    conv2d({
      filters,
      kernelSize: 3,
      strides: 2,
      useBias: false,
      kernelInitializer: first(seed),
      ...more,
    });
  return tf.sequential({
    layers: [
      ...[conv(8, 1, { inputShape: [SIDE, SIDE, 1] }), batchNormalization({ momentum: 0.9 })],
      ...[activation({ activation: "relu" }), conv(16, 2), batchNormalization({ momentum: 0.9 })],
      ...[activation({ activation: "relu" }), flatten()],
      dense({ units: CLASSES, activation: "softmax", kernelInitializer: first(3) }),
    ],
  });
}

const tensorsOf = ({ count, pixels, labels }: Images) => [
  tf.tensor4d(pixels, [count, SIDE, SIDE, 1]),
  tf.oneHot(tf.tensor1d(labels, "int32"), CLASSES).toFloat(),
];

/** Trains this rank's replica, and tells what it has learnt. */
export async function train(
  group: ProcessGroup,
  { digits, epochs, batch, norm }: Order,
): Promise<Run> {
  let model = network();
  if (norm !== "plain") {
    model = await convertSyncBatchNorm(tf, model, norm === "sync" ? group : inProcessGroup(1)[0]);
  }
  model.compile({
    optimizer: tf.train.momentum(0.02, 0.9),
    loss: "categoricalCrossentropy",
    metrics: ["accuracy"],
  });
  if (norm !== "plain") {
    broadcastWeights(tf, model, group);
    replicate(tf, model, group);
  }
  const counts = Array(group.worldSize).fill(batch / group.worldSize);
  const [x, y] = shareOf(tensorsOf(digits.training), batch, counts, group.rank);
  const validationData = shareOf(tensorsOf(digits.test), batch, counts, group.rank);
  const [snapshots, exams]: [Map<number, Float32Array>, Run["exams"][number][]] = [new Map(), []];
  let step = 0;
  const start = performance.now();
  await model.fit(x, y, {
    ...{ epochs, batchSize: counts[0], shuffle: false, validationData, verbose: 0 },
    callbacks: {
      onBatchEnd: () => {
        if (++step > 50 && step % 10 > 0) return;
        const flat = tf.concat(model.getWeights().map((w: { flatten(): unknown }) => w.flatten()));
        snapshots.set(step, flat.dataSync());
        flat.dispose();
      },
      onEpochEnd: (_: number, { val_acc, val_loss }: { val_acc: number; val_loss: number }) =>
        void exams.push({ step, accuracy: val_acc, loss: val_loss }),
    },
  });
  return { exams, snapshots, msPerStep: (performance.now() - start) / step };
}

serveRank(train);

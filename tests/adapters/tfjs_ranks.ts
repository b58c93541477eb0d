/** What a rank of the adapter's tests does with TensorFlow.js: plain functions of it, for workers of any runtime. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  broadcastWeights,
  convertSyncBatchNorm,
  replicate,
  shareOf,
} from "../../lib/adapters/tfjs.ts";
import type { ProcessGroup } from "../../mod.ts";
import { dataOf, OPTIMIZERS, SPECS, type Tf } from "./tfjs_models.ts";

/** A training run. */
export interface Training {
  readonly model: string;
  readonly optimizer: string;
  /** Rows of each rank in a batch; of one process the sum of them. */
  readonly counts: readonly number[];
  readonly rows: number;
  readonly epochs: number;
  /** Whether batch norms compute on a Wasm device of ours. */
  readonly ours?: boolean;
  /** Whether each replica takes statistics of its own. */
  readonly local?: boolean;
  readonly whenOut?: "stop" | "shadow";
  readonly classWeight?: Readonly<Record<number, number>>;
  /** Whether it is judged by rows of its own after each epoch. */
  readonly validated?: boolean;
}

/** What came of it. */
export interface Trained {
  /** Loss and metrics by epoch. */
  readonly history: Readonly<Record<string, readonly number[]>>;
  /** Loss by step. */
  readonly losses: readonly number[];
  readonly weights: readonly (readonly number[])[];
  /** Tensors after the last epoch, less those after the first. */
  readonly leaked: number;
}

/** Trains a compiled model on rows by its own `fit`. */
export async function fitted(
  tf: Tf,
  model: Tf,
  { x, y }: { readonly x: Tf; readonly y: Tf },
  { epochs, batchSize, validation, classWeight }: {
    readonly epochs: number;
    readonly batchSize: number;
    readonly validation?: readonly [Tf, Tf];
    readonly classWeight?: Readonly<Record<number, number>>;
  },
): Promise<Trained> {
  const losses: number[] = [];
  const tensors: number[] = [];
  const { history } = await model.fit(x, y, {
    ...{ epochs, batchSize, shuffle: false, verbose: 0, yieldEvery: "never" },
    ...{ validationData: validation, classWeight },
    callbacks: {
      onBatchEnd: (_: number, logs: { readonly loss: number }) => void losses.push(logs.loss),
      onEpochEnd: () => void tensors.push(tf.memory().numTensors),
    },
  });
  const weights = model.getWeights().map((weight: Tf) => [...weight.dataSync()]);
  const leaked = tensors[tensors.length - 1] - tensors[1];
  return { history, losses, weights, leaked };
}

/** Trains the whole in one process, by plain TensorFlow.js. */
export async function trainAlone(tf: Tf, task: Training): Promise<Trained> {
  const spec = SPECS[task.model];
  const model = spec.make(tf);
  return await compiledAndFitted(tf, model, task);
}

/** Trains as one rank of a group. */
export async function trainRank(tf: Tf, group: ProcessGroup, task: Training): Promise<Trained> {
  const spec = SPECS[task.model];
  const alone = { worldSize: 1, allReduceBlocking: group.allReduceBlocking };
  const device = task.ours ? await wasmDevice() : undefined;
  const model = await convertSyncBatchNorm(tf, spec.make(tf), task.local ? alone : group, {
    device,
  });
  model.compile({
    optimizer: OPTIMIZERS[task.optimizer](tf),
    ...{ loss: spec.loss, metrics: [...spec.metrics] },
  });
  broadcastWeights(tf, model, group);
  replicate(tf, model, group, { whenOut: task.whenOut });
  const { counts, rows, epochs, classWeight } = task;
  const batch = counts.reduce((a, b) => a + b);
  const data = dataOf(tf, spec, rows);
  const [x, y] = shareOf([data.x, data.y], batch, counts, group.rank);
  const validation = task.validated
    ? validationOf(tf, task, group.rank, group.worldSize)
    : undefined;
  const batchSize = Math.max(counts[group.rank], 1);
  return await fitted(tf, model, { x, y }, { epochs, batchSize, validation, classWeight });
}

async function compiledAndFitted(tf: Tf, model: Tf, task: Training) {
  const spec = SPECS[task.model];
  model.compile({
    optimizer: OPTIMIZERS[task.optimizer](tf),
    ...{ loss: spec.loss, metrics: [...spec.metrics] },
  });
  const { counts, rows, epochs, classWeight } = task;
  const batchSize = counts.reduce((a, b) => a + b);
  const validation = task.validated ? validationOf(tf, task, 0, 1) : undefined;
  return await fitted(tf, model, dataOf(tf, spec, rows), {
    ...{ epochs, batchSize, validation, classWeight },
  });
}

/** Rows to judge by: 7, of which the last rank has the rest. */
function validationOf(tf: Tf, { model }: Training, rank: number, worldSize: number) {
  const { x, y } = dataOf(tf, SPECS[model], 7, 77);
  const from = rank * 2;
  const rows = rank === worldSize - 1 ? 7 - from : 2;
  const part = (t: Tf) =>
    t.slice([from, ...t.shape.slice(1).map(() => 0)], [rows, ...t.shape.slice(1)]);
  return [part(x), part(y)] as const;
}

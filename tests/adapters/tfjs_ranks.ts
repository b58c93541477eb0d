/** What a rank of the adapter's tests does with TensorFlow.js: plain functions of it, for workers of any runtime. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  broadcastWeights,
  convertSyncBatchNorm,
  replicate,
  shareOf,
} from "../../lib/adapters/tfjs.ts";
import type { ProcessGroup } from "../../mod.ts";
import { dataOf, OPTIMIZERS, type Plan, type Spec, specOf, SPECS, type Tf } from "./tfjs_models.ts";

/** A training run. */
export interface Training {
  readonly model: string | Plan;
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
  /** Whether ranks train on data sets of batches, by `fitDataset`. */
  readonly dataset?: boolean;
  /** Whether it is judged by rows of its own after each epoch. */
  readonly validated?: boolean;
}

/** The model of a run. */
export function modelOf({ model }: Pick<Training, "model">): Spec {
  return typeof model === "string" ? SPECS[model] : specOf(model);
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

/** Trains by `fitDataset` instead. */
async function fittedDataset(
  model: Tf,
  { x, y }: { readonly x: Tf; readonly y: Tf },
  { epochs, batchSize }: { readonly epochs: number; readonly batchSize: number },
): Promise<Trained> {
  const [rows] = x.shape;
  const part = (t: Tf, at: number, size: number) =>
    t.slice([at, ...t.shape.slice(1).map(() => 0)], [size, ...t.shape.slice(1)]);
  const batches = Array.from({ length: Math.ceil(rows / batchSize) }, (_, i) => {
    const [at, size] = [i * batchSize, Math.min(batchSize, rows - i * batchSize)];
    return { xs: part(x, at, size), ys: part(y, at, size) };
  });
  const losses: number[] = [];
  const { history } = await model.fitDataset(datasetOf(batches), {
    ...{ epochs, verbose: 0, yieldEvery: "never" },
    callbacks: {
      onBatchEnd: (_: number, logs: { readonly loss: number }) => void losses.push(logs.loss),
    },
  });
  const weights = model.getWeights().map((weight: Tf) => [...weight.dataSync()]);
  return { history, losses, weights, leaked: 0 };
}

/** Trains the whole in one process, by plain TensorFlow.js. */
export async function trainAlone(tf: Tf, task: Training): Promise<Trained> {
  const spec = modelOf(task);
  const model = spec.make(tf);
  return await compiledAndFitted(tf, model, task);
}

let made: ReturnType<typeof wasmDevice> | undefined;

/** A Wasm device that lasts as long as the rank. */
const ourDevice = () => made ??= wasmDevice();

/** Trains as one rank of a group. */
export async function trainRank(tf: Tf, group: ProcessGroup, task: Training): Promise<Trained> {
  const spec = modelOf(task);
  const alone = { worldSize: 1, allReduceBlocking: group.allReduceBlocking };
  const device = task.ours ? await ourDevice() : undefined;
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
  if (task.dataset) return await fittedDataset(model, { x, y }, { epochs, batchSize });
  return await fitted(tf, model, { x, y }, { epochs, batchSize, validation, classWeight });
}

async function compiledAndFitted(tf: Tf, model: Tf, task: Training) {
  const spec = modelOf(task);
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
  const { x, y } = dataOf(tf, modelOf({ model }), 7, 77);
  const from = rank * 2;
  const rows = rank === worldSize - 1 ? 7 - from : 2;
  const part = (t: Tf) =>
    t.slice([from, ...t.shape.slice(1).map(() => 0)], [rows, ...t.shape.slice(1)]);
  return [part(x), part(y)] as const;
}

/** A data set as TensorFlow.js takes it; its iterators fail at a batch. */
export function datasetOf(batches: readonly Tf[], fails = Infinity) {
  return {
    size: batches.length,
    iterator: () => {
      let next = 0;
      return Promise.resolve({
        next: () => {
          if (next === fails) return Promise.reject(new Error("no more rows"));
          const { xs, ys } = batches[next] ?? {};
          const done = next++ >= batches.length;
          // fitDataset disposes of what it is given.
          return Promise.resolve({ done, value: done ? null : { xs: xs.clone(), ys: ys.clone() } });
        },
      });
    },
  };
}

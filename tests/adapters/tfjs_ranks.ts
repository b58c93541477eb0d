/** What a rank of the adapter's tests does with TensorFlow.js: plain functions of it, for workers of any runtime. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  broadcastWeights,
  convertSyncBatchNorm,
  replicate,
  shareOf,
} from "../../lib/adapters/tfjs.ts";
import type { ProcessGroup } from "../../mod.ts";
import {
  dataOf,
  OPTIMIZERS,
  type Plan,
  type Spec,
  specOf,
  SPECS,
  type Tf,
  uniform,
} from "./tfjs_models.ts";

/** A training run. */
export interface Training {
  readonly model: string | Plan;
  readonly optimizer: string;
  /** Rows of each rank in a batch; of one process the sum of them. */
  readonly counts: readonly number[];
  readonly rows: number;
  readonly epochs: number;
  /** Whether batch norms compute on a Wasm device of ours. */
  readonly ours?: boolean | "exact";
  /** Whether each replica takes statistics of its own. */
  readonly local?: boolean;
  readonly whenOut?: "stop" | "shadow";
  readonly classWeight?: Readonly<Record<number, number>>;
  /**
   * By which of TensorFlow.js's methods ranks train: `fit`; `fitDataset`, which may be judged by a data set too; `trainOnBatch`,
   * and is judged by `evaluate` and `evaluateDataset` in the end.
   */
  readonly by?: "fit" | "fitDataset" | "trainOnBatch";
  /** Moves each first weight by one unit in its last place, up or down as drawn with this seed. */
  readonly nudged?: number;
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

interface Rows {
  readonly x: Tf;
  readonly y: Tf;
}

interface FitOptions extends Pick<Training, "epochs" | "classWeight"> {
  readonly batchSize: number;
  readonly validation?: readonly [Tf, Tf];
}

/** Trains a compiled model on rows by its own `fit`. */
async function fitted(
  tf: Tf,
  model: Tf,
  { x, y }: Rows,
  { epochs, batchSize, validation, classWeight }: FitOptions,
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
  const leaked = tensors[tensors.length - 1] - tensors[1];
  return { history, losses, weights: weightsOf(model), leaked };
}

/** Data as a list of batches. */
function batchesOf({ x, y }: Rows, batchSize: number): readonly Tf[] {
  const [rows] = x.shape;
  const part = (t: Tf, at: number, size: number) =>
    t.slice([at, ...t.shape.slice(1).map(() => 0)], [size, ...t.shape.slice(1)]);
  return Array.from({ length: Math.ceil(rows / batchSize) }, (_, i) => {
    const [at, size] = [i * batchSize, Math.min(batchSize, rows - i * batchSize)];
    return { xs: part(x, at, size), ys: part(y, at, size) };
  });
}

/** Trains by `fitDataset`. */
async function fittedDataset(model: Tf, data: Rows, options: FitOptions): Promise<Trained> {
  const { epochs, batchSize, validation, classWeight } = options;
  const losses: number[] = [];
  const judging = validation && batchesOf({ x: validation[0], y: validation[1] }, 3);
  const { history } = await model.fitDataset(datasetOf(batchesOf(data, batchSize)), {
    ...{ epochs, verbose: 0, yieldEvery: "never", classWeight },
    validationData: judging && datasetOf(judging),
    callbacks: {
      onBatchEnd: (_: number, logs: { readonly loss: number }) => void losses.push(logs.loss),
    },
  });
  return { history, losses, weights: weightsOf(model), leaked: 0 };
}

/** Trains by `trainOnBatch`; its history is of steps. */
async function fittedByHand(tf: Tf, model: Tf, data: Rows, options: FitOptions): Promise<Trained> {
  const { epochs, batchSize } = options;
  const steps: number[][] = [];
  const tensors: number[] = [];
  const batches = batchesOf(data, batchSize);
  for (let epoch = 0; epoch < epochs; epoch++) {
    for (const { xs, ys } of batches) steps.push([await model.trainOnBatch(xs, ys)].flat());
    tensors.push(tf.memory().numTensors);
  }
  const read = (judged: Tf) => [judged].flat().map((value: Tf) => value.dataSync()[0]);
  const evaluated = [
    ...read(model.evaluate(data.x, data.y, { batchSize })),
    ...read(await model.evaluateDataset(datasetOf(batches), {})),
  ];
  const losses = steps.map(([loss]) => loss);
  const history = { loss: losses, metrics: steps.flatMap(([, ...rest]) => rest), evaluated };
  const leaked = tensors[tensors.length - 1] - tensors[1];
  return { history, losses, weights: weightsOf(model), leaked };
}

const weightsOf = (model: Tf) => model.getWeights().map((weight: Tf) => [...weight.dataSync()]);

/** Trains a compiled model in the way that a task wants it. */
function trained(
  tf: Tf,
  model: Tf,
  data: Rows,
  options: FitOptions,
  by: Training["by"],
): Promise<Trained> {
  if (by === "fitDataset") return fittedDataset(model, data, options);
  if (by === "trainOnBatch") return fittedByHand(tf, model, data, options);
  return fitted(tf, model, data, options);
}

/** Makes the model of a run. */
function made(tf: Tf, task: Training): Tf {
  const model = modelOf(task).make(tf);
  if (task.nudged === undefined) return model;
  const next = uniform(task.nudged);
  const nudge = (value: number) => value * (1 + (next() < 0.5 ? -1 : 1) * 2 ** -23);
  const weights = model.getWeights() as readonly Tf[];
  model.setWeights(weights.map((weight) => tf.tensor(weight.dataSync().map(nudge), weight.shape)));
  return model;
}

/** Trains the whole in one process, by plain TensorFlow.js. */
export async function trainAlone(tf: Tf, task: Training): Promise<Trained> {
  return await compiledAndFitted(tf, made(tf, task), task);
}

const devices = new Map<boolean, ReturnType<typeof wasmDevice>>();

/** A Wasm device that lasts as long as the rank. */
function ourDevice(exact: boolean): ReturnType<typeof wasmDevice> {
  const device = devices.get(exact) ?? wasmDevice({ exact });
  devices.set(exact, device);
  return device;
}

/** Trains as one rank of a group. */
export async function trainRank(tf: Tf, group: ProcessGroup, task: Training): Promise<Trained> {
  const spec = modelOf(task);
  const alone = { worldSize: 1, allReduceBlocking: group.allReduceBlocking };
  const device = task.ours ? await ourDevice(task.ours === "exact") : undefined;
  const model = await convertSyncBatchNorm(tf, made(tf, task), task.local ? alone : group, {
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
  const options = { epochs, batchSize, validation, classWeight };
  return await trained(tf, model, { x, y }, options, task.by);
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
  const options = { epochs, batchSize, validation, classWeight };
  return await trained(tf, model, dataOf(tf, spec, rows), options, task.by);
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

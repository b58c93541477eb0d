/**
 * What `fit`, `trainOnBatch` and `evaluate` are given: tensors, one, in a list or by names, and options.
 *
 * @module
 */

import { shown } from "../../words.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { checkAlive } from "./internals.ts";
import type { FitOptions } from "./model.ts";

/** Tensors as `fit` takes them: one, a list, or a record by names. */
export function tensorsOf(data: unknown): readonly TfTensor[] {
  if (Array.isArray(data)) return data;
  if (typeof data !== "object" || data === null) return [];
  return "dataId" in data ? [data as TfTensor] : Object.values(data);
}

/** A row of zeros in the place of each tensor. */
export function zerosLike(tf: TensorFlow, data: unknown): unknown {
  const row = ({ shape, dtype }: TfTensor) => tf.zeros([1, ...shape.slice(1)], dtype);
  if (Array.isArray(data)) return data.map(row);
  if ("dataId" in (data as object)) return row(data as TfTensor);
  const entries = Object.entries(data as Readonly<Record<string, TfTensor>>);
  return Object.fromEntries(entries.map(([name, tensor]) => [name, row(tensor)]));
}

/** Batches of an epoch of `fit`. */
export function batchesOf(x: unknown, { batchSize = 32, validationSplit = 0 }: FitOptions): number {
  const rows = tensorsOf(x)[0]?.shape?.[0] ?? 0;
  return Math.ceil(Math.floor(rows * (1 - validationSplit)) / batchSize);
}

/** Checks that no weights of rows are given, which TensorFlow.js has no use for. */
export function checkWeights(options: FitOptions | undefined, action: string): void {
  const { sampleWeight, validationData } = options ?? {};
  const given = sampleWeight ??
    (Array.isArray(validationData) && validationData.length === 3 ? validationData[2] : null);
  if (given === null || given === undefined) return;
  throw new TypeError(
    `Cannot ${action} with weights of rows, sampleWeight, as TensorFlow.js 4.22 does not implement them: current value is ` +
      `${shown(given)}; give classWeight, or weigh rows in a loss of your own`,
  );
}

/** Checks that tensors, wherever they stand in data, are there. */
export function checkData(tf: TensorFlow, data: readonly unknown[]): void {
  for (const tensor of data.flatMap(tensorsOf)) {
    if (tensor?.dataId) checkAlive(tf, tensor, "its data", "fit the model");
  }
}

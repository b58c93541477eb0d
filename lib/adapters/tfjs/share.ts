/**
 * A rank's rows of a data set.
 *
 * @module
 */

import { shown } from "../../words.ts";
import type { TfTensor } from "./framework.ts";

/** A tensor with the methods that tfjs gives all of its own. */
export interface Sliceable extends TfTensor {
  /** The elements at these places of the first axis. */
  gather(indices: number[]): TfTensor;
  /** A block of elements. */
  slice(begin: number[], size: number[]): TfTensor;
}

const ACTION = "share the rows out";

/**
 * Takes a rank's rows, so that its i-th batch of `counts[rank]` rows is its part of the i-th batch of `batchSize` rows:
 * `fit(xs, ys, { batchSize: counts[rank], shuffle: false })` on all ranks is then `fit` of the whole with `batchSize`.
 *
 * The last, smaller batch is shared out in proportion, so that all ranks have as many batches unless it has too few rows;
 * those that are left out need `replicate` with `{ whenOut: "shadow" }`.
 *
 * @param tensors a tensor or a list of them, with as many rows each; they are not changed
 * @param batchSize rows of a batch over all ranks
 * @param counts rows of each rank in a batch, which add up to `batchSize`; some may be 0
 * @param rank the rank
 * @returns new tensors of the rank's rows
 * @throws RangeError where counts do not add up or rank is none, TypeError for what is no tensor or has other rows
 *
 * @example
 * ```ts ignore
 * import { shareOf } from "@syncbn/syncbn/tfjs";
 *
 * const [xs, ys] = shareOf([x, y], 32, [8, 8, 8, 8], group.rank);
 * ```
 */
export function shareOf<T extends Sliceable | readonly Sliceable[]>(
  tensors: T,
  batchSize: number,
  counts: readonly number[],
  rank: number,
): T {
  const list = (Array.isArray(tensors) ? tensors : [tensors]) as readonly Sliceable[];
  checkShare(list, batchSize, counts, rank);
  const indices = rowsOf(list[0].shape[0], { batchSize, counts, rank });
  const shared = list.map((tensor) =>
    indices.length > 0
      ? tensor.gather(indices)
      : tensor.slice(tensor.shape.map(() => 0), [0, ...tensor.shape.slice(1)])
  );
  return (Array.isArray(tensors) ? shared : shared[0]) as unknown as T;
}

function rowsOf(
  rows: number,
  { batchSize, counts, rank }: {
    readonly batchSize: number;
    readonly counts: readonly number[];
    readonly rank: number;
  },
): number[] {
  const before = counts.slice(0, rank).reduce((total, count) => total + count, 0);
  const indices: number[] = [];
  for (let at = 0; at < rows; at += batchSize) {
    const size = Math.min(batchSize, rows - at);
    const [from, to] = [before, before + counts[rank]].map((n) => Math.floor(n * size / batchSize));
    for (let i = from; i < to; i++) indices.push(at + i);
  }
  return indices;
}

function checkShare(
  tensors: readonly Sliceable[],
  batchSize: number,
  counts: readonly number[],
  rank: number,
): void {
  for (const tensor of tensors) {
    if (typeof tensor?.gather === "function" && tensor.shape.length > 0) continue;
    throw new TypeError(
      `Cannot ${ACTION} as tensors must be tf.Tensors of rank >= 1, or a list of them: current value is ${
        shown(tensor)
      }`,
    );
  }
  const rows = tensors.map(({ shape }) => shape[0]);
  if (tensors.length === 0 || rows.some((own) => own !== rows[0])) {
    throw new TypeError(
      `Cannot ${ACTION} as all tensors must have as many rows: current numbers are ${
        rows.join(", ") || "none"
      }`,
    );
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  const integers = [batchSize, ...counts].every((value) =>
    Number.isSafeInteger(value) && value >= 0
  );
  if (!integers || batchSize < 1 || total !== batchSize) {
    throw new RangeError(
      `Cannot ${ACTION} as counts must be integers >= 0 that add up to batchSize: current values are ${
        counts.join(" + ")
      } and ${batchSize}`,
    );
  }
  if (Number.isInteger(rank) && rank >= 0 && rank < counts.length) return;
  throw new RangeError(
    `Cannot ${ACTION} as rank must be one below ${counts.length}: current value is ${shown(rank)}`,
  );
}

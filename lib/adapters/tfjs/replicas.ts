/**
 * Replicas that begin alike: the weights of one rank for all, and the proof that all have the same, both awaited.
 *
 * @module
 */

import { digest, wordsOf } from "../../bits.ts";
import { joined } from "../joined.ts";
import { meet, summed, type Work } from "./meetings.ts";
import type { TensorFlow, TfModel } from "./framework.ts";
import { replaceWeights } from "./weights.ts";

type Weighted = Pick<TfModel, "getWeights" | "setWeights">;

/** Hands on the weights of one rank, bit by bit: added to zeros, a NaN keeps its payload. */
export async function* handOnWeights(
  tf: TensorFlow,
  model: Weighted,
  isRoot: () => boolean,
): Work<void> {
  const root = isRoot();
  const own = await wordsIn(model);
  const given = root ? Float64Array.from(own) : new Float64Array(own.length);
  const total = yield* meet(summed(given));
  if (!root) replaceWeights(tf, model, total);
}

/** What ranks add up to find out whether their weights are the same: the halves of a digest, and their squares. */
export async function likenessOf(model: Weighted): Promise<readonly number[]> {
  const halves = digest(await wordsIn(model)).flatMap((word) => [word >>> 16, word & 0xffff]);
  return [...halves, ...halves.map((half) => half * half)];
}

/** Whether all ranks have added the same: the mean of squares is the square of the mean for equal numbers alone. */
export function areAlike(sums: ArrayLike<number>, worldSize: number): boolean {
  const all = Array.from(sums);
  const half = all.length / 2;
  return all.slice(0, half).every((sum, i) => sum * sum === worldSize * all[half + i]);
}

async function wordsIn(model: Weighted): Promise<Uint32Array> {
  const all = await Promise.all(model.getWeights().map((weight) => weight.data()));
  const length = all.reduce((sum, part) => sum + part.length, 0);
  return wordsOf(joined(new Float32Array(length), all));
}

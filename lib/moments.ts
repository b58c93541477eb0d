/**
 * The algebra of the wire: how two ranks' numbers become one.
 *
 * A moments wire is `[count, mean C, m2 C]`, a gradient wire `[sumDy C, sumDyXmu C]`, both float64.
 */

import type { Combine } from "./collectives.ts";
import { wrongKind, wrongPair } from "./words.ts";

/**
 * Adds two arrays element by element: the {@linkcode Combine} of gradient sums.
 *
 * @param a one rank's numbers, any length
 * @param b another's, of the same length
 * @returns a + b, a new array
 * @throws TypeError where the lengths differ
 *
 * @example
 * ```ts
 * import { sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(sum(Float64Array.of(1, 2), Float64Array.of(10, 20)), Float64Array.of(11, 22));
 * ```
 */
export const sum: Combine = Object.assign(
  function sum(a: Float64Array, b: Float64Array): Float64Array {
    checkLengths(a, b, "add the arrays");
    const { length } = a;
    const total = new Float64Array(length);
    for (let i = 0; i < length; i++) total[i] = a[i] + b[i];
    return total;
  },
  { elementwise: true } as const,
);

/**
 * Merges the moments of two sets of values into those of their union: the {@linkcode Combine} of statistics.
 *
 * With delta = mean_b - mean_a and n = n_a + n_b, per channel: mean = mean_a + delta * n_b / n and
 * m2 = m2_a + m2_b + delta^2 * n_a * n_b / n (Chan, Golub, LeVeque 1983, "Algorithms for computing the sample
 * variance", eq. 2.1). An empty side is skipped, not merged, which would move the mean by an ulp.
 *
 * @param a moments `[count, mean C, m2 C]`, length 1 + 2C; mean in the input's unit, m2 in its square
 * @param b moments of other values, of the same length
 * @returns the moments of both; one of the arguments where the other is empty
 * @throws TypeError where the lengths differ or are not 1 + 2C
 *
 * @example The values 1, 3 on one rank and 5 on another
 * ```ts
 * import { combineMoments } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(
 *   combineMoments(Float64Array.of(2, 2, 2), Float64Array.of(1, 5, 0)),
 *   Float64Array.of(3, 3, 8),
 * );
 * ```
 */
export const combineMoments: Combine = function combineMoments(
  a: Float64Array,
  b: Float64Array,
): Float64Array {
  checkMoments(a, b);
  if (a[0] === 0) return b;
  if (b[0] === 0) return a;
  const merged = new Float64Array(a.length);
  merge(a, b, merged);
  return merged;
};

/** The same into memory that is there already. */
export function combineMomentsInto(a: Float64Array, b: Float64Array, merged: Float64Array): void {
  checkMoments(a, b);
  if (a[0] !== 0 && b[0] !== 0) merge(a, b, merged);
  else if (merged !== (a[0] === 0 ? b : a)) merged.set(a[0] === 0 ? b : a);
}

/**
 * Merges moments of weighted values: {@linkcode combineMoments} of what follows the number of values, whose count is a sum of
 * weights.
 *
 * @param a moments `[positives, W, mean C, m2 C]`: values whose weight is positive, the sum of the weights, length 2 + 2C
 * @param b moments of other values, of the same length
 * @returns the moments of both, a new array
 * @throws TypeError where the lengths differ or are not 2 + 2C
 */
export const combineWeightedMoments: Combine = function combineWeightedMoments(
  a: Float64Array,
  b: Float64Array,
): Float64Array {
  const [left, right] = [a, b].map((wire) => wire.subarray(1));
  const merged = new Float64Array(a.length);
  combineMomentsInto(left, right, merged.subarray(1));
  merged[0] = a[0] + b[0];
  return merged;
};

function merge(a: Float64Array, b: Float64Array, merged: Float64Array): void {
  const [countA] = a;
  const [countB] = b;
  const channels = (a.length - 1) / 2;
  const count = countA + countB;
  const share = countB / count;
  merged[0] = count;
  for (let c = 1; c <= channels; c++) {
    const meanA = a[c];
    const m2 = a[channels + c] + b[channels + c];
    const delta = b[c] - meanA;
    // Beside an infinite mean there is no share of the way: the sum is that infinity, or NaN for two opposite ones.
    merged[c] = Number.isFinite(delta) ? meanA + delta * countB / count : meanA + b[c];
    merged[channels + c] = m2 + delta * delta * countA * share;
  }
}

function checkMoments(a: Float64Array, b: Float64Array): void {
  checkLengths(a, b, "merge the moments");
  if (a.length % 2 === 1) return;
  throw wrongKind("merge the moments", "they must be [count, mean C, m2 C]", a.length, "length");
}

function checkLengths(a: Float64Array, b: Float64Array, action: string): void {
  if (a.length !== b.length) {
    throw wrongPair(action, "their lengths must be equal", a.length, b.length);
  }
}

/** Checks that a batch has a variance: more than one value per channel, or none at all. */
export function checkCount(count: number, action: string): void {
  if (count !== 1) return;
  throw new RangeError(
    `Cannot ${action} as it needs more than 1 value per channel to have a variance: ` +
      `current number over all ranks is 1`,
  );
}

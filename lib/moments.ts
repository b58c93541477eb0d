/**
 * The algebra of the wire: how two ranks' numbers become one.
 *
 * A moments wire is `[count, mean C, m2 C]`, a gradient wire `[sumDy C, sumDyXmu C]`, both float64.
 *
 * @module
 */

import type { Combine } from "./collectives.ts";

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
export const sum: Combine = function sum(a: Float64Array, b: Float64Array): Float64Array {
  checkLengths(a, b, "add the arrays");
  return a.map((value, i) => value + b[i]);
};

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
 * import { mergeMoments } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(
 *   mergeMoments(Float64Array.of(2, 2, 2), Float64Array.of(1, 5, 0)),
 *   Float64Array.of(3, 3, 8),
 * );
 * ```
 */
export const mergeMoments: Combine = function mergeMoments(
  a: Float64Array,
  b: Float64Array,
): Float64Array {
  checkLengths(a, b, "merge the moments");
  if (a.length % 2 === 0) {
    throw new TypeError(
      `Cannot merge the moments as they must be [count, mean C, m2 C]: current length is ${a.length}`,
    );
  }
  const [countA] = a;
  const [countB] = b;
  if (countA === 0) return b;
  if (countB === 0) return a;
  const channels = (a.length - 1) / 2;
  const count = countA + countB;
  const merged = new Float64Array(a.length);
  merged[0] = count;
  for (let c = 1; c <= channels; c++) {
    const delta = b[c] - a[c];
    merged[c] = a[c] + delta * countB / count;
    merged[channels + c] = a[channels + c] + b[channels + c] +
      delta * delta * countA * (countB / count);
  }
  return merged;
};

function checkLengths(a: Float64Array, b: Float64Array, action: string): void {
  if (a.length !== b.length) {
    throw new TypeError(
      `Cannot ${action} as their lengths must be equal: current values are ${a.length} and ${b.length}`,
    );
  }
}

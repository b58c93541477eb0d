/** Running statistics whose error is known: half a unit in the last place of float32, and what float64 adds to it. */

import type { Values } from "../reference/kernels.ts";
import { nearest, unitsOf } from "./digits.ts";
import { isFiniteRecord, RECORD, wholeSum } from "./record.ts";
import { exactMomentsWire } from "./wires.ts";

/** Where old and observed mean cancel to less than this share of them, float64 is not enough. */
const CANCELLED = 2 ** -16;

/**
 * v' = (1 - factor) * v + factor * observed, with the unbiased variance m2 / (count - 1), in float64, rounded once; in fractions
 * where the two terms of a mean cancel.
 */
export function updateRunningStats(
  wire: Float64Array,
  factor: number,
  old: { readonly mean: Values; readonly variance: Values },
  updated: { readonly mean: Values; readonly variance: Values },
  rounded: Float64Array = exactMomentsWire.rounded!(wire),
): void {
  const C = (rounded.length - 1) / 2;
  const [count] = rounded;
  const kept = 1 - factor;
  for (let c = 0; c < C; c++) {
    const before = kept * old.mean[c];
    const observed = factor * rounded[1 + c];
    const mean = before + observed;
    const cancels = Math.abs(mean) < CANCELLED * Math.abs(before);
    updated.mean[c] = cancels && isFiniteRecord(wire, 1 + RECORD * c)
      ? mixed(wire, c, factor, old.mean[c])
      : mean;
    updated.variance[c] = kept * old.variance[c] + factor * (rounded[1 + C + c] / (count - 1));
  }
}

/** (1 - factor) * old + factor * sum / count as a fraction, rounded once. */
function mixed(wire: Float64Array, c: number, factor: number, old: number): number {
  const count = BigInt(wire[0]);
  const kept = unitsOf(1 - factor) * unitsOf(old) * count;
  // Units: 2^-1200 of each factor, 2^-160 of the sum.
  const observed = (unitsOf(factor) * wholeSum(wire, 1 + RECORD * c)) << 1040n;
  return nearest(kept + observed, count, -2400);
}

/** Running statistics whose error is known: half a unit in the last place of float32, and what float64 adds to it. */

import type { Values } from "../reference/kernels.ts";
import { nearest, unitsOf } from "./digits.ts";
import { isFiniteRecord, RECORD, wholeSum } from "./record.ts";
import { exactMomentsWire } from "./wires.ts";

/** Where old and observed mean cancel to less than this share of them, float64 is not enough. */
const CANCELLED = 2 ** -16;

/** Moments of a batch: rounded, [count, mean C, m2 C], and the sum of a channel's values in units of 2^-160, null where it is none. */
export interface Observed {
  readonly rounded: Float64Array;
  readonly sumOf: (c: number) => bigint | null;
}

/**
 * v' = (1 - factor) * v + factor * observed, with the unbiased variance m2 / (count - 1), in float64, rounded once; in fractions
 * where the two terms of a mean cancel. v where nothing counts.
 */
export function advanceExactly(
  { rounded, sumOf }: Observed,
  factor: number,
  old: { readonly mean: Values; readonly variance: Values },
  updated: { readonly mean: Values; readonly variance: Values },
): void {
  const C = (rounded.length - 1) / 2;
  const [count] = rounded;
  if (!(count > 0)) {
    updated.mean.set(old.mean);
    updated.variance.set(old.variance);
    return;
  }
  const kept = 1 - factor;
  for (let c = 0; c < C; c++) {
    const before = kept * old.mean[c];
    const mean = before + factor * rounded[1 + c];
    const sum = Math.abs(mean) < CANCELLED * Math.abs(before) ? sumOf(c) : null;
    updated.mean[c] = sum === null ? mean : mixed(sum, count, factor, old.mean[c]);
    updated.variance[c] = kept * old.variance[c] + factor * (rounded[1 + C + c] / (count - 1));
  }
}

/** {@linkcode advanceExactly} by moments as they travel. */
export function updateRunningStats(
  wire: Float64Array,
  ...others: Parameters<typeof advanceExactly> extends [Observed, ...infer R] ? R : never
): void {
  advanceExactly(observedIn(wire), ...others);
}

/** What exact moments say. */
function observedIn(wire: Float64Array): Observed {
  const sumOf = (c: number) => {
    const at = 1 + RECORD * c;
    return isFiniteRecord(wire, at) ? wholeSum(wire, at) : null;
  };
  return { rounded: exactMomentsWire.rounded!(wire), sumOf };
}

/** (1 - factor) * old + factor * sum / count as a fraction, rounded once. */
function mixed(sum: bigint, count: number, factor: number, old: number): number {
  const n = BigInt(count);
  const kept = unitsOf(1 - factor) * unitsOf(old) * n;
  // Units: 2^-1200 of each factor, 2^-160 of the sum.
  return nearest(kept + ((unitsOf(factor) * sum) << 1040n), n, -2400);
}

/**
 * The formulas of batch normalization with the same bits everywhere: sums without rounding, coefficients of a channel in float64,
 * each rounded once to float32, and one written sequence of float32 operations for every element.
 *
 * The signatures are those of `reference/kernels.ts`. Every operation is one of IEEE 754 that rounds once, and none is fused with
 * another: of two float32 numbers, float64 arithmetic rounded to float32 gives the bits of float32 arithmetic (Figueroa 1995).
 */

import type { ChannelAffine, ChannelStatistics, Values, View } from "../reference/kernels.ts";
import { eachValue, gate } from "../reference/kernels.ts";
import { carryRecord, RECORD, roundedSums, summing } from "./record.ts";
import { exactMomentsWire, exactWeightedMomentsWire, MOST_WEIGHT } from "./wires.ts";

export { gate };
export { updateRunningStats } from "./running.ts";

const fround = Math.fround;
/** The smallest normal float32: a variance + eps below it counts as 0, on every device that computes in float32. */
const SMALLEST_NORMAL = 2 ** -126;

/** 1/sqrt(variance + eps), or 0 for a constant channel without eps. */
export function invstd(variance: number, eps: number): number {
  const under = variance + eps;
  return under >= 0 && under < SMALLEST_NORMAL ? 0 : 1 / Math.sqrt(under);
}

/** What a mean is more than its float32. */
export function lowPart(mean: number): number {
  const hi = fround(mean);
  return Number.isFinite(hi) ? mean - hi : 0;
}

/** [count, sums of x and x^2 per channel]; all 0 for an empty batch. */
export function moments(x: View): Float64Array<ArrayBuffer> {
  const wire = new Float64Array(exactMomentsWire.length(x.channels));
  wire[0] = x.batch * x.inner;
  for (let c = 0; c < x.channels; c++) {
    const at = 1 + RECORD * c;
    const add = summing(wire, at);
    eachValue(c, [x, x, x], (i) => add(x.values[i], x.values[i] * x.values[i]));
    carryRecord(wire, at);
  }
  return wire;
}

/**
 * [positives, W, sums of x and x^2 per channel], in which each value counts as often as its weight says, a whole number up to 2^24; W
 * is NaN where one is none.
 */
export function weightedMoments(x: View, weights: View): Float64Array<ArrayBuffer> {
  const wire = new Float64Array(exactWeightedMomentsWire.length(x.channels));
  const { values } = weights;
  eachValue(0, [weights, weights, weights], (at) => {
    const weight = values[at];
    const isOne = Number.isInteger(weight) && weight >= 0 && weight <= MOST_WEIGHT;
    wire[0] += weight > 0 ? 1 : 0;
    wire[1] += isOne ? weight : NaN;
  });
  // Nobody may use sums by weights that are none, and some have no place in the digits.
  if (Number.isNaN(wire[1])) return wire;
  for (let c = 0; c < x.channels; c++) {
    const at = exactWeightedMomentsWire.length(c);
    const add = weighing(summing(wire, at));
    eachValue(c, [x, weights, x], (i, of) => {
      if (values[of] !== 0) add(x.values[i], x.values[i] * x.values[i], values[of]);
    });
    carryRecord(wire, at);
  }
  return wire;
}

/** Adds a value and a product of two float32 by a whole weight, which is below 2^25. */
function weighing(add: (value: number, product: number) => void) {
  return (value: number, product: number, weight: number): void => {
    if (weight === 1 || !Number.isFinite(product)) return add(value, product);
    // 48 bits or fewer each, as the value has.
    const high = upperHalf(product);
    add(weight * value, weight * high);
    add(0, weight * (product - high));
  };
}

/** The upper 24 bits of a product of 48 (Veltkamp 1968). */
function upperHalf(product: number): number {
  const large = product * (2 ** 29 + 1);
  return large - (large - product);
}

/** Statistics from exact moments: m2 by the share 1/count, and an infinite variance where nothing counts. */
export function statisticsOf(wire: Float64Array): ChannelStatistics {
  const rounded = exactMomentsWire.rounded!(wire);
  const [count] = rounded;
  const C = (rounded.length - 1) / 2;
  const share = shareOf(count);
  const variance = rounded.subarray(1 + C).map((m2) => count === 0 ? Infinity : m2 * share);
  return { count, mean: rounded.subarray(1, 1 + C), variance };
}

/** 1/count, and 0 of an empty batch. */
export function shareOf(count: number): number {
  return count === 0 ? 0 : 1 / count;
}

/** y = (x - hi) * scale + offset, then + residual, then max(y, 0), each rounded to float32. */
export function normalize(
  x: View,
  { mean, variance }: ChannelStatistics,
  { weight, bias, eps }: ChannelAffine,
  residual: View | null,
  relu: object | null,
  y: Values,
): void {
  for (let c = 0; c < x.channels; c++) {
    const hi = fround(mean[c]);
    const wide = (weight ? weight[c] : 1) * invstd(variance[c], eps);
    const scale = fround(wide);
    const offset = fround((bias ? bias[c] : 0) - lowPart(mean[c]) * wide);
    eachValue(c, [x, residual ?? x, x], (at, from) => {
      const affine = fround(fround(fround(x.values[at] - hi) * scale) + offset);
      const value = residual ? fround(affine + residual.values[from]) : affine;
      y[at] = relu && value <= 0 ? 0 : value;
    });
  }
}

/** Sums of dy and of dy * float32(x - hi) per channel, where dy counts as 0 unless output > 0, and as often as its weight says. */
export function gradientSums(
  x: View,
  dy: View,
  { mean }: Pick<ChannelStatistics, "mean">,
  output: View | null,
  weights: View | null,
): Float64Array<ArrayBuffer> {
  const wire = new Float64Array(RECORD * x.channels);
  for (let c = 0; c < x.channels; c++) {
    const hi = fround(mean[c]);
    const add = weighing(summing(wire, RECORD * c));
    eachValue(c, [x, dy, output ?? dy, weights ?? dy], (at, from, gate, of) => {
      const gradient = output === null || output.values[gate] > 0 ? dy.values[from] : 0;
      const counts = weights ? weights.values[of] : 1;
      if (gradient === 0 || counts === 0) return;
      add(gradient, gradient * fround(x.values[at] - hi), counts);
    });
    carryRecord(wire, RECORD * c);
  }
  return wire;
}

/** Sum of dy, and of dy * (x - mean): finite products about hi are short of lowPart(mean) * sum of dy. */
export function sumsOf(wire: Float64Array, c: number, mean: number): readonly [number, number] {
  const [sumDy, product] = roundedSums(wire, RECORD * c);
  return [sumDy, Number.isFinite(product) ? product - lowPart(mean) * sumDy : product];
}

/**
 * dx = ((x - hi) * slope + (dy + offset)) * scale, or dy * scale where there are no sums, each rounded to float32. By weights w it is
 * (w * ((x - hi) * slope) + (dy + w * offset)) * scale, and dy * scale where w is 0.
 */
export function gradInput(
  x: View,
  dy: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Pick<ChannelAffine, "weight" | "eps">,
  total: Float64Array | null,
  output: View | null,
  weights: View | null,
  dx: Values,
): void {
  const share = shareOf(count);
  for (let c = 0; c < x.channels; c++) {
    const hi = fround(mean[c]);
    const s = invstd(variance[c], eps);
    const scale = fround((weight ? weight[c] : 1) * s);
    const [sumDy, sumDyXmu] = total ? sumsOf(total, c, mean[c]) : [0, 0];
    const perXmu = -(s * s * (sumDyXmu * share));
    const slope = fround(perXmu);
    const offset = fround(-(sumDy * share + perXmu * lowPart(mean[c])));
    eachValue(c, [x, dy, output ?? dy, weights ?? dy], (at, from, gate, of) => {
      const gradient = output === null || output.values[gate] > 0 ? dy.values[from] : 0;
      const counts = weights ? weights.values[of] : 1;
      if (total === null || counts === 0) dx[at] = fround(gradient * scale);
      else {
        const product = fround(fround(fround(x.values[at] - hi) * slope) * counts);
        dx[at] = fround(fround(product + fround(gradient + fround(offset * counts))) * scale);
      }
    });
  }
}

/** gradWeight = s * sum dy*(x - mean), gradBias = sum dy. */
export function gradParameters(
  wire: Float64Array,
  { mean, variance }: ChannelStatistics,
  eps: number,
): { readonly gradWeight: Float32Array; readonly gradBias: Float32Array } {
  const C = wire.length / RECORD;
  const [gradWeight, gradBias] = [new Float32Array(C), new Float32Array(C)];
  for (let c = 0; c < C; c++) {
    const [sumDy, sumDyXmu] = sumsOf(wire, c, mean[c]);
    gradWeight[c] = invstd(variance[c], eps) * sumDyXmu;
    gradBias[c] = sumDy;
  }
  return { gradWeight, gradBias };
}

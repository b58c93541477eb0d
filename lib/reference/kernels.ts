/** The formulas of batch normalization as plain loops with float64 arithmetic: what every other device must compute. */

import type { Bounds } from "../activation.ts";
import { extents, type Format } from "../tensor.ts";

/** Elements in some storage; reading one gives its exact value, writing one rounds to the storage. */
export type Values = Float32Array | Float16Array | Float64Array;

/** Elements with the strides at which a sample, a channel and a position lie. */
export interface View {
  readonly values: Values;
  readonly batch: number;
  readonly channels: number;
  readonly inner: number;
  readonly sampleStride: number;
  readonly channelStride: number;
  readonly innerStride: number;
}

/** Statistics per channel as the formulas take them; variance is biased. */
export interface ChannelStatistics {
  readonly count: number;
  readonly mean: Values;
  readonly variance: Values;
}

/** Scale and offset per channel, and eps. */
export interface ChannelAffine {
  readonly weight: Values | null;
  readonly bias: Values | null;
  readonly eps: number;
}

/** Gives elements of a logical shape their strides. */
export function view(values: Values, shape: readonly number[], format: Format): View {
  const { batch, channels, inner } = extents(shape);
  const strides = format === "channelsFirst"
    ? { channelStride: inner, innerStride: 1 }
    : { channelStride: 1, innerStride: channels };
  return { values, batch, channels, inner, sampleStride: channels * inner, ...strides };
}

/** Weights of a batch's positions, as a view with one channel; each of a (N, 1) is that of all places of its sample. */
export function weightsView(
  values: Values,
  { batch, inner }: Pick<View, "batch" | "inner">,
  perSample: boolean,
): View {
  const strides = { sampleStride: perSample ? 1 : inner, innerStride: perSample ? 0 : 1 };
  return { values, batch, channels: 1, inner, channelStride: 0, ...strides };
}

/** Goes through the values of a channel, with where each lies in three or four views of one logical shape. */
export function eachValue(
  c: number,
  [x, y, z, w = x]: readonly [View, View, View, View?],
  visit: (atX: number, atY: number, atZ: number, atW: number) => void,
): void {
  for (let n = 0; n < x.batch; n++) {
    let atX = n * x.sampleStride + c * x.channelStride;
    let atY = n * y.sampleStride + c * y.channelStride;
    let atZ = n * z.sampleStride + c * z.channelStride;
    let atW = n * w.sampleStride + c * w.channelStride;
    for (let i = 0; i < x.inner; i++) {
      visit(atX, atY, atZ, atW);
      atX += x.innerStride;
      atY += y.innerStride;
      atZ += z.innerStride;
      atW += w.innerStride;
    }
  }
}

/**
 * 1/sqrt(variance + eps), or 0 for a constant channel without eps, so that it gives its bias and never NaN. A batch in which
 * nothing counts has an infinite variance.
 */
export function invstd(variance: number, eps: number): number {
  return variance + eps === 0 ? 0 : 1 / Math.sqrt(variance + eps);
}

/** [count, mean C, m2 C] by two passes; all 0 for an empty batch. */
export function moments(x: View): Float64Array<ArrayBuffer> {
  const { channels: C } = x;
  const count = x.batch * x.inner;
  const wire = new Float64Array(1 + 2 * C);
  if (count === 0) return wire;
  wire[0] = count;
  for (let c = 0; c < C; c++) {
    let total = 0;
    eachValue(c, [x, x, x], (at) => total += x.values[at]);
    const mean = total / count;
    let m2 = 0;
    eachValue(c, [x, x, x], (at) => {
      const deviation = x.values[at] - mean;
      m2 += deviation * deviation;
    });
    wire[1 + c] = mean;
    wire[1 + C + c] = m2;
  }
  return wire;
}

/**
 * [positives, W, mean C, m2 C] by weights: W is their sum, NaN where one is none. The mean is taken twice, the second time about
 * the first: weights round where counts do not, and equal values must have exactly their mean.
 */
export function weightedMoments(x: View, weights: View): Float64Array<ArrayBuffer> {
  const { channels: C } = x;
  const wire = new Float64Array(2 + 2 * C);
  const { values } = weights;
  const eachWeighted = (c: number, visit: (value: number, weight: number) => void) =>
    eachValue(c, [x, weights, x], (at, of) => values[of] > 0 && visit(x.values[at], values[of]));
  eachValue(0, [weights, weights, weights], (at) => {
    const weight = values[at];
    if (weight > 0) wire[0]++;
    wire[1] += weight >= 0 && Number.isFinite(weight) ? weight : NaN;
  });
  if (wire[0] === 0) return wire;
  for (let c = 0; c < C; c++) {
    let mean = 0;
    let m2 = 0;
    for (let pass = 0; pass < 2; pass++) {
      let rest = 0;
      eachWeighted(c, (value, weight) => rest += weight * (value - mean));
      if (pass === 0 || Number.isFinite(rest)) mean += rest / wire[1];
    }
    eachWeighted(c, (value, weight) => m2 += weight * (value - mean) ** 2);
    wire[2 + c] = mean;
    wire[2 + C + c] = m2;
  }
  return wire;
}

/** Statistics from [count, mean C, m2 C]. */
export function statisticsOf(wire: Float64Array): ChannelStatistics {
  const C = (wire.length - 1) / 2;
  const [count] = wire;
  const mean = wire.subarray(1, 1 + C);
  const variance = wire.subarray(1 + C).map((m2) => count === 0 ? Infinity : m2 / count);
  return { count, mean, variance };
}

/** An output and the bounds that it was rectified by: what gradients pass. */
export interface Gate extends View, Bounds {}

/** What an activation makes of a number; NaN stays NaN. */
export function rectified(value: number, { negativeSlope, maxValue }: Bounds): number {
  if (value <= 0) return negativeSlope === 0 ? 0 : negativeSlope * value;
  return value > maxValue ? maxValue : value;
}

/** What passes the gate of the output at a place; where its slope is 0 nothing does, not even of NaN. */
export function passed(
  value: number,
  { values, negativeSlope, maxValue }: Gate,
  at: number,
): number {
  if (values[at] > 0) return values[at] < maxValue || maxValue === Infinity ? value : 0;
  return negativeSlope === 0 ? 0 : negativeSlope * value;
}

/** y = (x - mean) * s * weight + bias, then + residual, then the activation, written in x's memory order. */
export function normalize(
  x: View,
  { mean, variance }: ChannelStatistics,
  { weight, bias, eps }: ChannelAffine,
  residual: View | null,
  activation: Bounds | null,
  y: Values,
): void {
  for (let c = 0; c < x.channels; c++) {
    const scale = invstd(variance[c], eps) * (weight ? weight[c] : 1);
    const offset = bias ? bias[c] : 0;
    eachValue(c, [x, residual ?? x, x], (at, from) => {
      const affine = (x.values[at] - mean[c]) * scale + offset;
      const value = residual ? affine + residual.values[from] : affine;
      y[at] = activation ? rectified(value, activation) : value;
    });
  }
}

/**
 * v' = (1 - factor) * v + factor * observed, with the unbiased variance m2 / (count - 1), or m2 / count of a count of 1 or less;
 * v of a batch in which nothing counts, or whose count is not known.
 */
export function updateRunningStats(
  wire: Float64Array,
  factor: number,
  old: { readonly mean: Values; readonly variance: Values },
  updated: { readonly mean: Values; readonly variance: Values },
): void {
  const C = (wire.length - 1) / 2;
  const [count] = wire;
  if (!(count > 0)) {
    updated.mean.set(old.mean);
    updated.variance.set(old.variance);
    return;
  }
  for (let c = 0; c < C; c++) {
    const mean = wire[1 + c];
    const unbiased = wire[1 + C + c] / (count > 1 ? count - 1 : count);
    updated.mean[c] = (1 - factor) * old.mean[c] + factor * mean;
    updated.variance[c] = (1 - factor) * old.variance[c] + factor * unbiased;
  }
}

/** [sum dy C, sum dy*(x - mean) C], where dy is behind the output's gate, and counts as w*dy with weights. */
export function gradientSums(
  x: View,
  dy: View,
  { mean }: Pick<ChannelStatistics, "mean">,
  output: Gate | null,
  weights: View | null = null,
): Float64Array<ArrayBuffer> {
  const { channels: C } = x;
  const sums = new Float64Array(2 * C);
  for (let c = 0; c < C; c++) {
    let sumDy = 0;
    let sumDyXmu = 0;
    eachValue(c, [x, dy, output ?? dy, weights ?? dy], (at, from, gate, of) => {
      const counts = weights ? weights.values[of] : 1;
      const value = counts === 0 ? 0 : counts * dy.values[from];
      const gradient = output === null ? value : passed(value, output, gate);
      sumDy += gradient;
      // Left out rather than multiplied: x may be infinite where no gradient flows.
      if (gradient !== 0) sumDyXmu += gradient * (x.values[at] - mean[c]);
    });
    sums[c] = sumDy;
    sums[C + c] = sumDyXmu;
  }
  return sums;
}

/**
 * dx = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), or weight*s*dy where there are no sums,
 * written in x's memory order; dy is behind the output's gate. With weights both terms behind dy are times that of the
 * position, and left out where it is 0.
 */
export function gradInput(
  x: View,
  dy: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Pick<ChannelAffine, "weight" | "eps">,
  total: Float64Array | null,
  output: Gate | null,
  weights: View | null,
  dx: Values,
): void {
  const { channels: C } = x;
  for (let c = 0; c < C; c++) {
    const s = invstd(variance[c], eps);
    const scale = s * (weight ? weight[c] : 1);
    const meanDy = total ? total[c] / count : 0;
    const slope = total ? s * s * total[C + c] / count : 0;
    eachValue(c, [x, dy, output ?? dy, weights ?? dy], (at, from, gate, of) => {
      const value = dy.values[from];
      const gradient = output === null ? value : passed(value, output, gate);
      const counts = weights ? weights.values[of] : 1;
      const centered = total && counts !== 0
        ? gradient - counts * meanDy - counts * (x.values[at] - mean[c]) * slope
        : gradient;
      dx[at] = scale * centered;
    });
  }
}

/** gradWeight = s * sum dy*(x - mean), gradBias = sum dy, from this rank's sums. */
export function gradParameters(
  local: Float64Array,
  { variance }: ChannelStatistics,
  eps: number,
): { readonly gradWeight: Float32Array; readonly gradBias: Float32Array } {
  const C = local.length / 2;
  const gradWeight = Float32Array.from(
    local.subarray(C),
    (sumDyXmu, c) => sumDyXmu * invstd(variance[c], eps),
  );
  return { gradWeight, gradBias: Float32Array.from(local.subarray(0, C)) };
}

/** dy behind the output's gate, all of it without one; written into a view of the wanted memory order. */
export function gate(dy: View, output: Gate | null, result: View): void {
  for (let c = 0; c < dy.channels; c++) {
    eachValue(c, [dy, output ?? dy, result], (from, gate, to) => {
      const value = dy.values[from];
      result.values[to] = output === null ? value : passed(value, output, gate);
    });
  }
}

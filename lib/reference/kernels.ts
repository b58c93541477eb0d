/** The formulas of batch normalization as plain loops with float64 arithmetic: what every other device must compute. */

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

/** Goes through the values of a channel, with where each lies in three views of one logical shape. */
export function eachValue(
  c: number,
  [x, y, z]: readonly [View, View, View],
  visit: (atX: number, atY: number, atZ: number) => void,
): void {
  for (let n = 0; n < x.batch; n++) {
    let atX = n * x.sampleStride + c * x.channelStride;
    let atY = n * y.sampleStride + c * y.channelStride;
    let atZ = n * z.sampleStride + c * z.channelStride;
    for (let i = 0; i < x.inner; i++) {
      visit(atX, atY, atZ);
      atX += x.innerStride;
      atY += y.innerStride;
      atZ += z.innerStride;
    }
  }
}

/** 1/sqrt(variance + eps), or 0 for a constant channel without eps, so that it gives its bias and never NaN. */
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

/** Statistics from [count, mean C, m2 C]. */
export function statisticsOf(wire: Float64Array): ChannelStatistics {
  const C = (wire.length - 1) / 2;
  const [count] = wire;
  const mean = wire.subarray(1, 1 + C);
  const variance = wire.subarray(1 + C).map((m2) => count === 0 ? 0 : m2 / count);
  return { count, mean, variance };
}

/** y = (x - mean) * s * weight + bias, then + residual, then max(y, 0), written in x's memory order. */
export function normalize(
  x: View,
  { mean, variance }: ChannelStatistics,
  { weight, bias, eps }: ChannelAffine,
  residual: View | null,
  relu: boolean,
  y: Values,
): void {
  for (let c = 0; c < x.channels; c++) {
    const scale = invstd(variance[c], eps) * (weight ? weight[c] : 1);
    const offset = bias ? bias[c] : 0;
    eachValue(c, [x, residual ?? x, x], (at, from) => {
      const affine = (x.values[at] - mean[c]) * scale + offset;
      const value = residual ? affine + residual.values[from] : affine;
      y[at] = relu && value <= 0 ? 0 : value;
    });
  }
}

/** v' = (1 - factor) * v + factor * observed, with the unbiased variance m2 / (count - 1). */
export function updateRunningStats(
  wire: Float64Array,
  factor: number,
  old: { readonly mean: Values; readonly variance: Values },
  updated: { readonly mean: Values; readonly variance: Values },
): void {
  const C = (wire.length - 1) / 2;
  for (let c = 0; c < C; c++) {
    const mean = wire[1 + c];
    const unbiased = wire[1 + C + c] / (wire[0] - 1);
    updated.mean[c] = (1 - factor) * old.mean[c] + factor * mean;
    updated.variance[c] = (1 - factor) * old.variance[c] + factor * unbiased;
  }
}

/** [sum dy C, sum dy*(x - mean) C], where dy counts as 0 unless output > 0. */
export function gradientSums(
  x: View,
  dy: View,
  { mean }: Pick<ChannelStatistics, "mean">,
  output: View | null,
): Float64Array<ArrayBuffer> {
  const { channels: C } = x;
  const sums = new Float64Array(2 * C);
  for (let c = 0; c < C; c++) {
    let sumDy = 0;
    let sumDyXmu = 0;
    eachValue(c, [x, dy, output ?? dy], (at, from, gate) => {
      const gradient = output === null || output.values[gate] > 0 ? dy.values[from] : 0;
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
 * written in x's memory order; dy counts as 0 unless output > 0.
 */
export function gradInput(
  x: View,
  dy: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Pick<ChannelAffine, "weight" | "eps">,
  total: Float64Array | null,
  output: View | null,
  dx: Values,
): void {
  const { channels: C } = x;
  for (let c = 0; c < C; c++) {
    const s = invstd(variance[c], eps);
    const scale = s * (weight ? weight[c] : 1);
    const meanDy = total ? total[c] / count : 0;
    const slope = total ? s * s * total[C + c] / count : 0;
    eachValue(c, [x, dy, output ?? dy], (at, from, gate) => {
      const gradient = output === null || output.values[gate] > 0 ? dy.values[from] : 0;
      const centered = total ? gradient - meanDy - (x.values[at] - mean[c]) * slope : gradient;
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

/** dy where output > 0, else 0; all of dy without an output; written into a view of the wanted memory order. */
export function gate(dy: View, output: View | null, result: View): void {
  for (let c = 0; c < dy.channels; c++) {
    eachValue(c, [dy, output ?? dy, result], (from, gate, to) => {
      const open = output === null || output.values[gate] > 0;
      result.values[to] = open ? dy.values[from] : 0;
    });
  }
}

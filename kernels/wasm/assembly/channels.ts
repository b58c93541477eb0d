// What is computed once per channel, in float64: statistics, the coefficients of the loops, running statistics.

import { ChannelMoments, merge, RECORD } from "./moments";
import { ChannelSums } from "./sums";
import { bytes } from "./vectors";

/** The smallest normal float32. A variance below it, which float32 squares cannot carry, counts as 0. */
const SMALLEST_NORMAL: f64 = 1.1754943508222875e-38;

/** Position of channel c's number in a plane of float64. */
// @ts-ignore: decorator
@inline
function wide(plane: usize, c: u32): usize {
  return plane + (<usize> c << 3);
}

/** 1/sqrt(variance + eps), or 0 for a constant channel without eps; NaN for what is negative. */
// @ts-ignore: decorator
@inline
function invstd(variance: f64, eps: f64): f64 {
  const under = variance + eps;
  return under >= 0 && under < SMALLEST_NORMAL ? 0 : 1 / Math.sqrt(under);
}

/** What a mean is more than its float32; 0 for an infinite one, which has no such part. */
// @ts-ignore: decorator
@inline
function lowPart(mean: f64): f64 {
  const hi = <f64> (<f32> mean);
  return isFinite(hi) ? mean - hi : 0;
}

/** A weight per channel; 1 where there is none. */
// @ts-ignore: decorator
@inline
function weightOf(weight: usize, c: u32): f64 {
  return weight ? <f64> load<f32>(weight + bytes(c)) : 1;
}

/**
 * Merges the records of all threads, in order, into moments.
 *
 * @param records a record per channel and thread
 * @param count values per channel
 * @param moments the result: float64 [count, mean C, m2 C]
 */
export function mergeMoments(records: usize, threads: u32, channels: u32, count: f64, moments: usize): void {
  store<f64>(moments, count);
  const means = moments + 8;
  const m2s = wide(means, channels);
  for (let c: u32 = 0; c < channels; c++) {
    const channel = changetype<ChannelMoments>(records + <usize> c * RECORD);
    for (let t: u32 = 1; t < threads; t++) {
      const other = changetype<ChannelMoments>(records + <usize> (t * channels + c) * RECORD);
      merge(channel, other.count, other.mean, other.m2);
    }
    store<f64>(wide(means, c), channel.mean);
    store<f64>(wide(m2s, c), channel.m2);
  }
}

/**
 * Adds the records of all threads, in order, to gradient sums.
 *
 * @param records a record per channel and thread
 * @param statistics planes of float64: mean, s
 * @param sums the result: float64 [sumDy C, sumDyXmu C]
 */
export function mergeSums(records: usize, threads: u32, channels: u32, statistics: usize, sums: usize): void {
  const products = wide(sums, channels);
  for (let c: u32 = 0; c < channels; c++) {
    let dy: f64 = 0, product: f64 = 0;
    for (let t: u32 = 0; t < threads; t++) {
      const part = changetype<ChannelSums>(records + <usize> (t * channels + c) * RECORD);
      dy += part.dy;
      product += part.products;
    }
    store<f64>(wide(sums, c), dy);
    store<f64>(wide(products, c), product - lowPart(load<f64>(wide(statistics, c))) * dy);
  }
}

/**
 * Statistics of a batch, or of a state.
 *
 * @param moments float64 [count, mean C, m2 C]; 0 for those of a state
 * @param runningMean float32 per channel, where there are no moments
 * @param runningVar the same
 * @param eps added to the variance
 * @param statistics the result, planes of float64: mean, s
 */
export function resolve(
  moments: usize,
  runningMean: usize,
  runningVar: usize,
  channels: u32,
  eps: f64,
  statistics: usize,
): void {
  const count = moments ? load<f64>(moments) : 0;
  const share = count == 0 ? 0 : 1 / count;
  const means = moments + 8;
  const m2s = wide(means, channels);
  const deviations = wide(statistics, channels);
  for (let c: u32 = 0; c < channels; c++) {
    let mean: f64, variance: f64;
    if (moments) {
      mean = load<f64>(wide(means, c));
      variance = load<f64>(wide(m2s, c)) * share;
    } else {
      mean = <f64> load<f32>(runningMean + bytes(c));
      variance = <f64> load<f32>(runningVar + bytes(c));
    }
    store<f64>(wide(statistics, c), mean);
    store<f64>(wide(deviations, c), invstd(variance, eps));
  }
}

/**
 * Coefficients of normalization.
 *
 * @param statistics planes of float64: mean, s
 * @param weight float32 per channel, or 0
 * @param bias float32 per channel, or 0
 * @param coefficients the result, planes of float32: hi, scale, offset
 */
export function normalizeCoefficients(
  statistics: usize,
  weight: usize,
  bias: usize,
  channels: u32,
  coefficients: usize,
): void {
  const deviations = wide(statistics, channels);
  const plane = bytes(channels);
  for (let c: u32 = 0; c < channels; c++) {
    const mean = load<f64>(wide(statistics, c));
    const scale = weightOf(weight, c) * load<f64>(wide(deviations, c));
    const offset = bias ? <f64> load<f32>(bias + bytes(c)) : 0;
    const at = coefficients + bytes(c);
    store<f32>(at, <f32> mean);
    store<f32>(at + plane, <f32> scale);
    store<f32>(at + 2 * plane, <f32> (offset - lowPart(mean) * scale));
  }
}

/**
 * Coefficients of the gradient of the input.
 *
 * @param statistics planes of float64: mean, s
 * @param sums float64 [sumDy C, sumDyXmu C] over the whole group; 0 in evaluation
 * @param count values per channel over the whole group
 * @param weight float32 per channel, or 0
 * @param coefficients the result, planes of float32: hi, scale, slope, offset
 */
export function gradientCoefficients(
  statistics: usize,
  sums: usize,
  count: f64,
  weight: usize,
  channels: u32,
  coefficients: usize,
): void {
  const share = 1 / count;
  const deviations = wide(statistics, channels);
  const products = wide(sums, channels);
  const plane = bytes(channels);
  for (let c: u32 = 0; c < channels; c++) {
    const mean = load<f64>(wide(statistics, c));
    const s = load<f64>(wide(deviations, c));
    let slope: f64 = 0, offset: f64 = 0;
    if (sums) {
      slope = -s * s * load<f64>(wide(products, c)) * share;
      offset = -load<f64>(wide(sums, c)) * share - slope * lowPart(mean);
    }
    const at = coefficients + bytes(c);
    store<f32>(at, <f32> mean);
    store<f32>(at + plane, <f32> (weightOf(weight, c) * s));
    store<f32>(at + 2 * plane, <f32> slope);
    store<f32>(at + 3 * plane, <f32> offset);
  }
}

/** gradWeight = s * sumDyXmu and gradBias = sumDy, float32, from this rank's sums; 0 for one that is not wanted. */
export function gradientsOfParameters(
  statistics: usize,
  sums: usize,
  channels: u32,
  gradWeight: usize,
  gradBias: usize,
): void {
  const deviations = wide(statistics, channels);
  const products = wide(sums, channels);
  for (let c: u32 = 0; c < channels; c++) {
    const s = load<f64>(wide(deviations, c));
    if (gradWeight) store<f32>(gradWeight + bytes(c), <f32> (s * load<f64>(wide(products, c))));
    if (gradBias) store<f32>(gradBias + bytes(c), <f32> load<f64>(wide(sums, c)));
  }
}

/**
 * v' = (1 - factor) * v + factor * observed, where the observed variance is m2 / (count - 1).
 *
 * @param moments float64 [count, mean C, m2 C]
 * @param mean old running mean, float32 per channel; likewise the others
 */
export function updateRunningStats(
  moments: usize,
  factor: f64,
  channels: u32,
  mean: usize,
  variance: usize,
  newMean: usize,
  newVariance: usize,
): void {
  const degrees = load<f64>(moments) - 1;
  const means = moments + 8;
  const m2s = wide(means, channels);
  for (let c: u32 = 0; c < channels; c++) {
    const at = bytes(c);
    const unbiased = load<f64>(wide(m2s, c)) / degrees;
    const oldMean = <f64> load<f32>(mean + at), oldVariance = <f64> load<f32>(variance + at);
    store<f32>(newMean + at, <f32> ((1 - factor) * oldMean + factor * load<f64>(wide(means, c))));
    store<f32>(newVariance + at, <f32> ((1 - factor) * oldVariance + factor * unbiased));
  }
}

/** Repeats planes of a number per channel for rows of `period` lanes: lane j gets that of channel (j / inner) % channels. */
export function spread(planes: u32, from: usize, channels: u32, inner: u32, period: u32, to: usize): void {
  for (let plane: u32 = 0; plane < planes; plane++) {
    const end = to + bytes(period);
    while (to < end) {
      for (let c: u32 = 0; c < channels; c++) {
        const value = load<f32>(from + bytes(c));
        for (let i: u32 = 0; i < inner; i++, to += 4) store<f32>(to, value);
      }
    }
    from += bytes(channels);
  }
}

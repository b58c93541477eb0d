// What is computed once per channel, two at a time in float64: means, coefficients, gradients of parameters, running statistics.
//
// Statistics are those of a batch, its moments [count, mean C, m2 C], or those of a state, its running mean and variance;
// `moments` is 0 for the latter.

import { both, load32, lowPart, store32, wide } from "./pairs";
import { bytes, zeros } from "./vectors";

/** The smallest normal float32. A variance below it, which float32 squares cannot carry, counts as 0. */
const SMALLEST_NORMAL: f64 = 1.1754943508222875e-38;

// @ts-ignore: decorator
@inline
export function meanOf(moments: usize, runningMean: usize, c: u32): v128 {
  return moments ? v128.load(wide(moments + 8, c)) : load32(runningMean + bytes(c));
}

/**
 * 1/sqrt(variance + eps), or 0 for a constant channel without eps, and of moments of nothing; NaN for what is negative. `share` is
 * 1/count.
 */
// @ts-ignore: decorator
@inline
export function invstdOf(moments: usize, runningVar: usize, channels: u32, c: u32, share: f64, eps: f64): v128 {
  if (moments && share == 0) return zeros();
  const variance = moments
    ? f64x2.mul(v128.load(wide(moments + 8, channels + c)), both(share))
    : load32(runningVar + bytes(c));
  const under = f64x2.add(variance, both(eps));
  const none = v128.and(f64x2.ge(under, zeros()), f64x2.lt(under, both(SMALLEST_NORMAL)));
  return v128.andnot(f64x2.div(both(1), f64x2.sqrt(under)), none);
}

/** 1/count of moments; 0 for an empty batch, and where there are none. */
// @ts-ignore: decorator
@inline
export function shareOf(moments: usize): f64 {
  const count = moments ? load<f64>(moments) : 0;
  return count == 0 ? 0 : 1 / count;
}

/** A weight or a bias per channel; `none` where there is none. */
// @ts-ignore: decorator
@inline
export function parameter(plane: usize, none: f64, c: u32): v128 {
  return plane ? load32(plane + bytes(c)) : both(none);
}

/** Means as float32, which the loops of gradient sums take. */
export function means(moments: usize, runningMean: usize, channels: u32, his: usize): void {
  for (let c: u32 = 0; c < channels; c += 2) store32(his + bytes(c), meanOf(moments, runningMean, c), channels - c);
}

/** Coefficients of normalization, planes of float32: hi, scale, offset; `weight` and `bias` are 0 where there are none. */
export function normalizeCoefficients(
  moments: usize, runningMean: usize, runningVar: usize, eps: f64, weight: usize, bias: usize, channels: u32,
  coefficients: usize,
): void {
  const share = shareOf(moments);
  for (let c: u32 = 0; c < channels; c += 2) {
    const mean = meanOf(moments, runningMean, c);
    const scale = f64x2.mul(parameter(weight, 1, c), invstdOf(moments, runningVar, channels, c, share, eps));
    const offset = f64x2.sub(parameter(bias, 0, c), f64x2.mul(lowPart(mean), scale));
    const at = coefficients + bytes(c), left = channels - c;
    store32(at, mean, left);
    store32(at + bytes(channels), scale, left);
    store32(at + 2 * bytes(channels), offset, left);
  }
}

/**
 * Coefficients of the gradient of the input, planes of float32: hi, scale, offset, slope; and the gradients of the parameters where
 * they are wanted: gradWeight = s * sumDyXmu, gradBias = sumDy of the local sums. `totals`, those of the group, are 0 in
 * evaluation.
 */
export function gradientCoefficients(
  moments: usize, runningMean: usize, runningVar: usize, eps: f64, local: usize, totals: usize, weight: usize,
  channels: u32, coefficients: usize, gradWeight: usize, gradBias: usize,
): void {
  const share = shareOf(moments);
  for (let c: u32 = 0; c < channels; c += 2) {
    const mean = meanOf(moments, runningMean, c);
    const s = invstdOf(moments, runningVar, channels, c, share, eps);
    let slope = zeros(), offset = zeros();
    if (totals) {
      const dy = f64x2.mul(v128.load(wide(totals, c)), both(share));
      const product = f64x2.mul(v128.load(wide(totals, channels + c)), both(share));
      slope = f64x2.neg(f64x2.mul(f64x2.mul(s, s), product));
      offset = f64x2.neg(f64x2.add(dy, f64x2.mul(slope, lowPart(mean))));
    }
    const at = coefficients + bytes(c), left = channels - c;
    store32(at, mean, left);
    store32(at + bytes(channels), f64x2.mul(parameter(weight, 1, c), s), left);
    store32(at + 2 * bytes(channels), offset, left);
    store32(at + 3 * bytes(channels), slope, left);
    if (gradWeight) store32(gradWeight + bytes(c), f64x2.mul(s, v128.load(wide(local, channels + c))), left);
    if (gradBias) store32(gradBias + bytes(c), v128.load(wide(local, c)), left);
  }
}

/**
 * v' = (1 - factor) * v + factor * observed, where the observed variance is m2 / (count - 1), or m2 / count of weights that are 1
 * or less in all; v where nothing counts.
 */
export function updateRunningStats(
  moments: usize, factor: f64, channels: u32, mean: usize, variance: usize, newMean: usize, newVariance: usize,
): void {
  const count = load<f64>(moments);
  const degrees = count > 1 ? count - 1 : count;
  if (!(count > 0)) {
    memory.copy(newMean, mean, bytes(channels));
    memory.copy(newVariance, variance, bytes(channels));
    return;
  }
  for (let c: u32 = 0; c < channels; c += 2) {
    const at = bytes(c), left = channels - c;
    const observed = v128.load(wide(moments + 8, c));
    const unbiased = f64x2.div(v128.load(wide(moments + 8, channels + c)), both(degrees));
    store32(newMean + at, mixed(load32(mean + at), observed, factor), left);
    store32(newVariance + at, mixed(load32(variance + at), unbiased, factor), left);
  }
}

// @ts-ignore: decorator
@inline
function mixed(old: v128, observed: v128, factor: f64): v128 {
  return f64x2.add(f64x2.mul(both(1 - factor), old), f64x2.mul(both(factor), observed));
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

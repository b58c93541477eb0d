// Second order once per channel, two at a time in float64: coefficients of directions.ts, and the weight's gradient. `moments`,
// means and variances are as channels.ts has them; addresses of what there is not are 0.

import { invstdOf, meanOf, parameter, shareOf } from "./channels";
import { both, lowPart, store32, wide } from "./pairs";
import { bytes, zeros } from "./vectors";

/** The sum of a channel in the first or second plane of gradient sums, times a factor; 0 where there are none. */
// @ts-ignore: decorator
@inline
function sumOf(sums: usize, c: u32, factor: f64): v128 {
  return sums ? f64x2.mul(v128.load(wide(sums, c)), both(factor)) : zeros();
}

/**
 * Coefficients of a direction, planes of float32: hi, s, and those of the direction, xhat and 1. `along` are sums of the input's
 * direction; `own` is 1 where the first coefficient is weight*s, else 0, and `plain` is added to it.
 */
export function directionCoefficients(
  moments: usize, runningMean: usize, runningVar: usize, eps: f64, weight: usize, along: usize, ofWeight: usize,
  ofBias: usize, ofMean: usize, ofVariance: usize, own: f64, plain: f64, channels: u32, coefficients: usize,
): void {
  const share = shareOf(moments), plane = bytes(channels);
  for (let c: u32 = 0; c < channels; c += 2) {
    const mean = meanOf(moments, runningMean, c);
    const s = invstdOf(moments, runningVar, channels, c, share, eps);
    const scale = f64x2.mul(parameter(weight, 1, c), s);
    let perXhat = f64x2.sub(parameter(ofWeight, 0, c), f64x2.mul(f64x2.mul(scale, s), sumOf(along, channels + c, share)));
    if (ofVariance) {
      const perXmu = f64x2.mul(parameter(ofVariance, 0, c), both(2 * share));
      // Where s is 0, so is every deviation.
      perXhat = f64x2.add(perXhat, v128.and(f64x2.div(perXmu, s), f64x2.ne(s, zeros())));
    }
    let offset = f64x2.sub(parameter(ofBias, 0, c), f64x2.mul(scale, sumOf(along, c, share)));
    offset = f64x2.add(offset, f64x2.mul(parameter(ofMean, 0, c), both(share)));
    offset = f64x2.sub(offset, f64x2.mul(perXhat, f64x2.mul(s, lowPart(mean))));
    const at = coefficients + bytes(c), left = channels - c;
    store32(at, mean, left);
    store32(at + plane, s, left);
    store32(at + 2 * plane, f64x2.add(f64x2.mul(scale, both(own)), both(plain)), left);
    store32(at + 3 * plane, perXhat, left);
    store32(at + 4 * plane, offset, left);
  }
}

/**
 * Coefficients of the gradient of the input of a backward pass, planes of float32: those of the direction a, dy, xhat and 1.
 * (S1, S2), (A, B), (., D) and (E, F) are sums of the group, all 0 in evaluation; `weighted` is 0 too where E and F are S1 and S2
 * times `ofWeight`. d * s is xhat here, so that no factor leaves the range of float32 where the result does not.
 */
export function secondCoefficients(
  moments: usize, runningMean: usize, runningVar: usize, eps: f64, weight: usize, gradient: usize, along: usize,
  products: usize, weighted: usize, ofWeight: usize, channels: u32, coefficients: usize,
): void {
  const share = shareOf(moments), plane = bytes(channels);
  for (let c: u32 = 0; c < channels; c += 2) {
    const s = invstdOf(moments, runningVar, channels, c, share, eps), squared = f64x2.mul(s, s);
    const q = parameter(ofWeight, 0, c);
    const S1 = sumOf(gradient, c, share), S2 = sumOf(gradient, channels + c, share);
    const A = sumOf(along, c, share), B = sumOf(along, channels + c, share);
    const D = sumOf(products, channels + c, share);
    const E = weighted ? sumOf(weighted, c, share) : f64x2.mul(q, S1);
    const F = weighted ? sumOf(weighted, channels + c, share) : f64x2.mul(q, S2);
    const scale = f64x2.mul(parameter(weight, 1, c), squared), cubed = f64x2.mul(scale, s);
    // 3*s^2*S2*B first: each of the others' products is as large as D.
    const third = f64x2.mul(f64x2.mul(both(3), squared), f64x2.mul(S2, B));
    const inner = f64x2.add(f64x2.sub(f64x2.mul(A, S1), D), third);
    const perXhat = f64x2.sub(f64x2.mul(scale, inner), f64x2.mul(squared, F));
    let offset = f64x2.mul(cubed, f64x2.add(f64x2.mul(B, S1), f64x2.mul(S2, A)));
    offset = f64x2.sub(offset, f64x2.mul(s, E));
    offset = f64x2.sub(offset, f64x2.mul(perXhat, f64x2.mul(s, lowPart(meanOf(moments, runningMean, c)))));
    const at = coefficients + bytes(c), left = channels - c;
    store32(at, f64x2.neg(f64x2.mul(cubed, S2)), left);
    store32(at + plane, f64x2.sub(f64x2.mul(s, q), f64x2.mul(cubed, B)), left);
    store32(at + 2 * plane, perXhat, left);
    store32(at + 3 * plane, offset, left);
  }
}

/** s * (D - A*S1/N - B*s^2*S2/N): (A, B) and (., D) are this rank's, (S1, S2) the group's; s*D in evaluation, which has no others. */
export function secondGradWeight(
  moments: usize, runningVar: usize, eps: f64, gradient: usize, along: usize, products: usize, channels: u32,
  gradWeight: usize,
): void {
  const share = shareOf(moments);
  for (let c: u32 = 0; c < channels; c += 2) {
    const s = invstdOf(moments, runningVar, channels, c, share, eps);
    const level = f64x2.mul(sumOf(along, c, 1), sumOf(gradient, c, share));
    const slope = f64x2.mul(sumOf(along, channels + c, 1), sumOf(gradient, channels + c, share));
    const sum = f64x2.sub(sumOf(products, channels + c, 1), f64x2.add(level, f64x2.mul(f64x2.mul(s, s), slope)));
    store32(gradWeight + bytes(c), f64x2.mul(s, sum), channels - c);
  }
}

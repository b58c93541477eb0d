// dx = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), as scale * (dy + offset + (x - hi) * slope); without
// sums (evaluation) dx = scale * dy, and x is not read. No two of these factors are multiplied into one: s^3 leaves the range of
// float32 where dx does not. dy counts as 0 where forward's output was not positive, if there was a ReLU; it
// is then also the gradient of the residual. dx may be the same memory as dy.

import { madd } from "./vectors";

/** Which parts of the formula a loop has; known when it is compiled. */
// @ts-ignore: decorator
@inline
export function dxOf(x: v128, g: v128, hi: v128, scale: v128, slope: v128, offset: v128, centred: bool): v128 {
  return f32x4.mul(centred ? madd(f32x4.sub(x, hi), slope, f32x4.add(g, offset)) : g, scale);
}

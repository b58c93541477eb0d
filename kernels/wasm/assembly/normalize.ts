// y = (x - mean) * s * weight + bias, then + residual, then max(y, 0).
//
// mean = hi + lo, and lo is part of the offset: y = (x - hi) * scale + offset. The difference comes first, so that nothing
// is lost where |mean| is much larger than the deviation. Output and input may be the same memory.

import { madd, rectified } from "./vectors";

/** One vector of y. */
// @ts-ignore: decorator
@inline
export function one(x: v128, residual: v128, hi: v128, scale: v128, offset: v128, add: bool, relu: bool): v128 {
  let y = madd(f32x4.sub(x, hi), scale, offset);
  if (add) y = f32x4.add(y, residual);
  if (relu) y = rectified(y);
  return y;
}

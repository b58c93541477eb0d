// Numbers per channel in planes, two channels at a time in float64. Where only one is left two are read all the same: blocks of
// memory are whole cache lines, which no odd plane fills.

import { zeros } from "./vectors";

/** Position of channel c's number in a plane of float64. */
// @ts-ignore: decorator
@inline
export function wide(plane: usize, c: u32): usize {
  return plane + (<usize> c << 3);
}

/** Two float64, or the first where only one is left. */
// @ts-ignore: decorator
@inline
export function store64(at: usize, v: v128, left: u32): void {
  if (left == 1) v128.store64_lane(at, v, 0);
  else v128.store(at, v);
}

/** Two float32 as float64. */
// @ts-ignore: decorator
@inline
export function load32(at: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(at));
}

/** Two float64 rounded to float32, or the first where only one is left. */
// @ts-ignore: decorator
@inline
export function store32(at: usize, v: v128, left: u32): void {
  const rounded = f32x4.demote_f64x2_zero(v);
  if (left == 1) v128.store32_lane(at, rounded, 0);
  else v128.store64_lane(at, rounded, 0);
}

// @ts-ignore: decorator
@inline
export function both(value: f64): v128 {
  return f64x2.splat(value);
}

/** What a mean is more than its float32; 0 for one that is not finite there, and has no such part. */
// @ts-ignore: decorator
@inline
export function lowPart(mean: v128): v128 {
  const hi = f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero(mean));
  return v128.and(f64x2.sub(mean, hi), f64x2.eq(f64x2.sub(hi, hi), zeros()));
}

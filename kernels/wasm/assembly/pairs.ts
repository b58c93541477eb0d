// Numbers per channel in planes: two channels at a time in float64, and a last one alone.

import { zeros } from "./vectors";

/** Position of channel c's number in a plane of float64. */
// @ts-ignore: decorator
@inline
export function wide(plane: usize, c: u32): usize {
  return plane + (<usize> c << 3);
}

/** Two float64, or one. */
// @ts-ignore: decorator
@inline
export function load64(at: usize, alone: bool): v128 {
  return alone ? v128.load64_zero(at) : v128.load(at);
}

// @ts-ignore: decorator
@inline
export function store64(at: usize, v: v128, alone: bool): void {
  if (alone) v128.store64_lane(at, v, 0);
  else v128.store(at, v);
}

/** Two float32 as float64, or one. */
// @ts-ignore: decorator
@inline
export function load32(at: usize, alone: bool): v128 {
  return f64x2.promote_low_f32x4(alone ? v128.load32_zero(at) : v128.load64_zero(at));
}

/** Two float64 rounded to float32, or one. */
// @ts-ignore: decorator
@inline
export function store32(at: usize, v: v128, alone: bool): void {
  const rounded = f32x4.demote_f64x2_zero(v);
  if (alone) v128.store32_lane(at, rounded, 0);
  else v128.store64_lane(at, rounded, 0);
}

// @ts-ignore: decorator
@inline
export function both(value: f64): v128 {
  return f64x2.splat(value);
}

/** A mean as float32, and in float64 again. */
// @ts-ignore: decorator
@inline
function highPart(mean: v128): v128 {
  return f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero(mean));
}

/** What a mean is more than its float32; 0 for one that is not finite there, and has no such part. */
// @ts-ignore: decorator
@inline
export function lowPart(mean: v128): v128 {
  const hi = highPart(mean);
  return v128.and(f64x2.sub(mean, hi), f64x2.eq(f64x2.sub(hi, hi), zeros()));
}

// float16 in memory, float32 in arithmetic: a run of halves is widened into scratch memory, worked on there, and narrowed.

import { bytes, loadRest, storeRest } from "./vectors";

/** Most elements of a run that is widened at once: two or three of them stay in the first-level cache. */
export const MOST: u32 = 4096;

/** Address of an element of a tensor. */
// @ts-ignore: decorator
@inline
export function address(tensor: usize, element: u32, half: bool): usize {
  return tensor + (<usize> element << (half ? 1 : 2));
}

/** An address that many bytes further on; nothing, 0, stays nothing. */
// @ts-ignore: decorator
@inline
export function further(at: usize, distance: usize): usize {
  return at ? at + distance : 0;
}

/** Where float32 elements of a run can be read: in place, or widened into scratch memory. */
// @ts-ignore: decorator
@inline
export function readable(tensor: usize, element: u32, length: u32, half: bool, scratch: usize): usize {
  if (!half) return tensor + bytes(element);
  widen(tensor + (<usize> element << 1), scratch, length);
  return scratch;
}

/** float16 -> float32, exact; a NaN stays one. */
export function widen(from: usize, to: usize, length: u32): void {
  const end = from + (<usize> (length & ~3) << 1);
  while (from < end) {
    v128.store(to, widened(v128.load16x4_u(from)));
    from += 8;
    to += 16;
  }
  for (let i: u32 = 0; i < (length & 3); i++) {
    store<f32>(to + bytes(i), halfAt(from + (<usize> i << 1)));
  }
}

/** float32 -> float16, rounded to nearest, ties to even; what is too large becomes infinite. */
export function narrow(from: usize, to: usize, length: u32): void {
  const end = from + bytes(length & ~3);
  while (from < end) {
    v128.store64_lane(to, narrowed(v128.load(from)), 0);
    from += 16;
    to += 8;
  }
  const rest = length & 3;
  if (rest == 0) return;
  const halves = narrowed(loadRest(from, rest));
  v128.store16_lane(to, halves, 0);
  if (rest > 1) v128.store16_lane(to, halves, 1, 2);
  if (rest > 2) v128.store16_lane(to, halves, 2, 4);
}

/** One element of a tensor. */
export function valueAt(tensor: usize, element: u32, half: bool): f64 {
  const at = address(tensor, element, half);
  return half ? <f64> halfAt(at) : <f64> load<f32>(at);
}

/** One float16. */
function halfAt(at: usize): f32 {
  return f32x4.extract_lane(widened(v128.load16_lane(at, i32x4.splat(0), 0)), 0);
}

/** The 1 to 3 elements at an address; lanes beyond them are 0, memory beyond is not read. */
// @ts-ignore: decorator
@inline
export function loadFew(at: usize, rest: u32, half: bool): v128 {
  if (!half) return loadRest(at, rest);
  let bits = v128.load16_lane(at, i32x4.splat(0), 0);
  if (rest > 1) bits = v128.load16_lane(at, bits, 2, 2);
  return widened(rest > 2 ? v128.load16_lane(at, bits, 4, 4) : bits);
}

/** Four halves in 32-bit lanes: their bits as a float32 with too small an exponent, scaled, which is exact. */
// @ts-ignore: decorator
@inline
export function widened(bits: v128): v128 {
  const sign = i32x4.shl(v128.and(bits, i32x4.splat(0x8000)), 16);
  const magnitude = v128.and(bits, i32x4.splat(0x7fff));
  const scaled = f32x4.mul(i32x4.shl(magnitude, 13), f32x4.splat(5.192296858534828e33)); // 2^112
  const special = i32x4.gt_s(magnitude, i32x4.splat(0x7bff));
  const exponent = v128.and(special, i32x4.splat(0x7f800000));
  return v128.or(v128.or(scaled, exponent), sign);
}

/** Four float32 as halves in the low 64 bits. */
// @ts-ignore: decorator
@inline
function narrowed(v: v128): v128 {
  const sign = v128.and(i32x4.shr_u(v, 16), i32x4.splat(0x8000));
  const a = v128.and(v, i32x4.splat(0x7fffffff));
  // Normal: rebias the exponent by 112, round the 13 bits that go away to even.
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  const rounded = i32x4.add(i32x4.add(a, odd), i32x4.splat(0xfff - (112 << 23)));
  let bits = i32x4.shr_u(rounded, 13);
  // Below 2^-14: 0.5 has the spacing of subnormal halves, so that the addition rounds.
  const small = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), f32x4.splat(0.5));
  bits = v128.bitselect(small, bits, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  // From 65520 on: infinite; NaN: the quiet one.
  bits = v128.bitselect(i32x4.splat(0x7c00), bits, i32x4.ge_s(a, i32x4.splat(0x477ff000)));
  bits = v128.bitselect(i32x4.splat(0x7e00), bits, i32x4.gt_s(a, i32x4.splat(0x7f800000)));
  const halves = v128.or(bits, sign);
  return i16x8.narrow_i32x4_u(halves, halves);
}

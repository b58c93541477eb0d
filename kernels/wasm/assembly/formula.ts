// What is computed of elements by coefficients of their channel: y of a forward pass, or dx of a backward pass. The result may be
// in the memory of what it is made of.
//
// y = (x - mean) * s * weight + bias, then + residual, then max(y, 0). mean = hi + lo, and lo is part of the offset:
// y = (x - hi) * scale + offset. The difference comes first, so that nothing is lost where |mean| is much larger than the deviation.
//
// dx = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), as scale * (dy + offset + (x - hi) * slope); without
// sums (evaluation) dx = scale * dy, and x is not read. No two of these factors are multiplied into one: s^3 leaves the range of
// float32 where dx does not. dy is behind the gate of forward's output, if there was a ReLU: it counts as 0 where that
// was not positive; it is then also the gradient of the residual.

import { gated, loadRest, madd, rectified, storeRest } from "./vectors";

/** Parts of a loop's formula, known when it is compiled: it reads x, and g, which is the residual or dy; g has a gate; g is passed on. */
export const X: u32 = 1;
export const G: u32 = 2;
export const GATED: u32 = 4;
export const PASSED: u32 = 8;
/** It ends with max(y, 0); it is that of dx. These two are the host's to choose. */
export const RELU: u32 = 16;
export const BACK: u32 = 32;
/** Its activation, or that of its gate, has bounds (vectors.ts). */
export const BOUNDED: u32 = 64;

// @ts-ignore: decorator
@inline
function formula(x: v128, g: v128, hi: v128, scale: v128, offset: v128, slope: v128, kind: u32): v128 {
  if (kind & BACK) return f32x4.mul(kind & X ? madd(f32x4.sub(x, hi), slope, f32x4.add(g, offset)) : g, scale);
  let y = madd(f32x4.sub(x, hi), scale, offset);
  if (kind & G) y = f32x4.add(y, g);
  if (kind & RELU) y = rectified(y, (kind & BOUNDED) != 0);
  return y;
}

/** One vector. */
// @ts-ignore: decorator
@inline
export function step(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, hi: v128, scale: v128, offset: v128, slope: v128,
  kind: u32,
): void {
  const term = kind & GATED ? gated(v128.load(g), v128.load(gate), (kind & BOUNDED) != 0) : kind & G ? v128.load(g) : scale;
  v128.store(y, formula(kind & X ? v128.load(x) : scale, term, hi, scale, offset, slope, kind));
  if (kind & PASSED) v128.store(passed, term);
}

/** One to four vectors side by side, and those that lie `stride` bytes further each time, as far as `height`. */
// @ts-ignore: decorator
@inline
export function steps(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, height: usize, stride: usize, h0: v128, h1: v128,
  h2: v128, h3: v128, s0: v128, s1: v128, s2: v128, s3: v128, o0: v128, o1: v128, o2: v128, o3: v128, l0: v128,
  l1: v128, l2: v128, l3: v128, vectors: u32, kind: u32,
): void {
  for (const end = y + height; y < end; x += stride, g += stride, gate += stride, y += stride, passed += stride) {
    step(x, g, gate, y, passed, h0, s0, o0, l0, kind);
    if (vectors > 1) {
      const term = kind & GATED ? gated(v128.load(g, 16), v128.load(gate, 16), (kind & BOUNDED) != 0) : kind & G ? v128.load(g, 16) : s1;
      v128.store(y, formula(kind & X ? v128.load(x, 16) : s1, term, h1, s1, o1, l1, kind), 16);
      if (kind & PASSED) v128.store(passed, term, 16);
    }
    if (vectors > 2) {
      const term = kind & GATED ? gated(v128.load(g, 32), v128.load(gate, 32), (kind & BOUNDED) != 0) : kind & G ? v128.load(g, 32) : s2;
      v128.store(y, formula(kind & X ? v128.load(x, 32) : s2, term, h2, s2, o2, l2, kind), 32);
      if (kind & PASSED) v128.store(passed, term, 32);
    }
    if (vectors > 3) {
      const term = kind & GATED ? gated(v128.load(g, 48), v128.load(gate, 48), (kind & BOUNDED) != 0) : kind & G ? v128.load(g, 48) : s3;
      v128.store(y, formula(kind & X ? v128.load(x, 48) : s3, term, h3, s3, o3, l3, kind), 48);
      if (kind & PASSED) v128.store(passed, term, 48);
    }
  }
}

/** The 1 to 3 elements that follow the last whole vector. */
// @ts-ignore: decorator
@inline
export function last(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, hi: v128, scale: v128, offset: v128, slope: v128,
  rest: u32, kind: u32,
): void {
  let term = kind & G ? loadRest(g, rest) : scale;
  if (kind & GATED) term = gated(term, loadRest(gate, rest), (kind & BOUNDED) != 0);
  storeRest(y, formula(kind & X ? loadRest(x, rest) : scale, term, hi, scale, offset, slope, kind), rest);
  if (kind & PASSED) storeRest(passed, term, rest);
}

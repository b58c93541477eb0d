// Strips that are summed without rounding: what is in memory becomes two planes of float32, d = x or x - hi, and t = dy behind its
// gate, whatever its storage and stride.

import { FACTORS, RANGES, TERMS } from "./exact_plan";
import { GATED, MOMENTS, SUMS } from "./reduction";
import { further, loadFew, widened } from "./storage";
import { gated, keep, zeros } from "./vectors";

// @ts-ignore: decorator
@inline
function four(at: usize, half: bool): v128 {
  return half ? widened(v128.load16x4_u(at)) : v128.load(at);
}

/** Gathers vectors that lie `stride` bytes apart, with the largest bits of sizes, and the smallest ones but 0, less 1. */
// @ts-ignore: decorator
@inline
function gatherAs(
  x: usize, g: usize, gate: usize, size: usize, stride: usize, hi: v128, work: usize, kind: u32, half: bool,
): void {
  const sizes = i32x4.splat(0x7fffffff), ones = i32x4.splat(-1);
  let most = zeros(), least = ones, mostT = most, leastT = ones;
  for (let to = work + FACTORS, end = to + size; to < end; to += 16, x += stride) {
    const d = kind == MOMENTS ? four(x, half) : f32x4.sub(four(x, half), hi);
    v128.store(to, d);
    const a = v128.and(d, sizes);
    most = i32x4.max_u(most, a);
    least = i32x4.min_u(least, i32x4.add(a, ones));
    if (kind == MOMENTS) continue;
    const t = kind == GATED ? gated(four(g, half), four(gate, half)) : four(g, half);
    v128.store(to, t, TERMS);
    const b = v128.and(t, sizes);
    mostT = i32x4.max_u(mostT, b);
    leastT = i32x4.min_u(leastT, i32x4.add(b, ones));
    g += stride;
    if (kind == GATED) gate += stride;
  }
  v128.store(work, most, RANGES);
  v128.store(work, least, RANGES + 16);
  v128.store(work, kind == MOMENTS ? most : mostT, RANGES + 32);
  v128.store(work, kind == MOMENTS ? least : leastT, RANGES + 48);
}

/** Gathers what follows the last whole vector; lanes beyond it are 0. */
function gatherRest(x: usize, g: usize, gate: usize, size: usize, rest: u32, hi: v128, work: usize, half: bool): void {
  const to = work + size + FACTORS, few = loadFew(x, rest, half);
  const d = g ? keep(f32x4.sub(few, hi), rest) : few;
  v128.store(to, d);
  see(work + RANGES, d);
  let t = d;
  if (g) {
    t = loadFew(g, rest, half);
    if (gate) t = gated(t, loadFew(gate, rest, half));
    v128.store(to, t, TERMS);
  }
  see(work + RANGES + 32, t);
}

// @ts-ignore: decorator
@inline
function see(ranges: usize, v: v128): void {
  const a = v128.and(v, i32x4.splat(0x7fffffff));
  v128.store(ranges, i32x4.max_u(v128.load(ranges), a));
  v128.store(ranges, i32x4.min_u(v128.load(ranges, 16), i32x4.add(a, i32x4.splat(-1))), 16);
}

/**
 * Gathers a strip: vectors of x, and of dy and its gate if they are not 0, to `size` bytes of float32 that lie `stride` bytes apart,
 * and `rest` elements more; `his` are the four means that d is about where there is dy. 1,024 elements in all at most.
 */
export function gather(
  x: usize, g: usize, gate: usize, size: usize, stride: usize, rest: u32, his: usize, work: usize, half: bool,
): void {
  const hi = v128.load(his);
  const kind = gate ? GATED : g ? SUMS : MOMENTS;
  if (half) {
    if (kind == MOMENTS) gatherAs(x, g, gate, size, stride, hi, work, MOMENTS, true);
    else if (kind == SUMS) gatherAs(x, g, gate, size, stride, hi, work, SUMS, true);
    else gatherAs(x, g, gate, size, stride, hi, work, GATED, true);
  } else {
    if (kind == MOMENTS) gatherAs(x, g, gate, size, stride, hi, work, MOMENTS, false);
    else if (kind == SUMS) gatherAs(x, g, gate, size, stride, hi, work, SUMS, false);
    else gatherAs(x, g, gate, size, stride, hi, work, GATED, false);
  }
  if (!rest) return;
  const end = (size >> 4) * stride;
  gatherRest(x + end, further(g, end), further(gate, end), size, rest, hi, work, half);
}

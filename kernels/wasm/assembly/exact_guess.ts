// A strip of float32 that is summed where it lies, by the number M that did for the one before it, and looked at meanwhile: what was
// seen tells whether anything was lost. Strips are mostly alike, and a look before the sums takes half as long as those.

import { FAST, GUESS, isGuessed, isRight, ONES, RANGES, SIZES, TOTALS, unite } from "./exact_plan";
import { leave } from "./exact_sums";
import { GATED, MOMENTS, SUMS, term } from "./reduction";
import { zeros } from "./vectors";

// @ts-ignore: decorator
@inline
function upper(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<u64>(v, v, 1, 1));
}

/** What gatherAs sees and sumFast sums, in one; masks and means are read every time, as the accumulators need the registers. */
// @ts-ignore: decorator
@inline
function sumAs(x: usize, g: usize, gate: usize, size: usize, stride: usize, his: usize, work: usize, kind: u32): void {
  const m = v128.load(work, GUESS);
  let h0 = m, h1 = m, l0 = zeros(), l1 = zeros(), s0 = zeros(), s1 = zeros();
  let most = zeros(), least = i32x4.splat(-1), mostT = most, leastT = least;
  for (const end = x + (size >> 4) * stride; x < end; x += stride) {
    const d = kind == MOMENTS ? v128.load(x) : f32x4.sub(v128.load(x), v128.load(his));
    const a = v128.and(d, v128.load(work, SIZES));
    most = i32x4.max_u(most, a);
    least = i32x4.min_u(least, i32x4.add(a, v128.load(work, ONES)));
    const t = term(d, g, gate, kind);
    if (kind != MOMENTS) {
      const b = v128.and(t, v128.load(work, SIZES));
      mostT = i32x4.max_u(mostT, b);
      leastT = i32x4.min_u(leastT, i32x4.add(b, v128.load(work, ONES)));
      g += stride;
      if (kind == GATED) gate += stride;
    }
    const a0 = f64x2.promote_low_f32x4(t), p0 = f64x2.mul(a0, kind == MOMENTS ? a0 : f64x2.promote_low_f32x4(d));
    s0 = f64x2.add(s0, a0);
    const t0 = f64x2.add(h0, p0);
    l0 = f64x2.add(l0, f64x2.sub(p0, f64x2.sub(t0, h0)));
    h0 = t0;
    const a1 = upper(t), p1 = f64x2.mul(a1, kind == MOMENTS ? a1 : upper(d));
    s1 = f64x2.add(s1, a1);
    const t1 = f64x2.add(h1, p1);
    l1 = f64x2.add(l1, f64x2.sub(p1, f64x2.sub(t1, h1)));
    h1 = t1;
  }
  v128.store(work, most, RANGES);
  v128.store(work, least, RANGES + 16);
  v128.store(work, kind == MOMENTS ? most : mostT, RANGES + 32);
  v128.store(work, kind == MOMENTS ? least : leastT, RANGES + 48);
  v128.store(work, s0, TOTALS);
  v128.store(work, s1, TOTALS + 16);
  v128.store(work, f64x2.sub(h0, m), TOTALS + 32);
  v128.store(work, f64x2.sub(h1, m), TOTALS + 48);
  v128.store(work, l0, TOTALS + 64);
  v128.store(work, l1, TOTALS + 80);
}

/** Adds a strip, as gather and addStrip do, if there is a guess and it is right; else it adds nothing and is false. */
export function addByGuess(
  x: usize, g: usize, gate: usize, size: usize, stride: usize, his: usize, work: usize, records: usize, lane: u32,
  channels: u32, inner: u32,
): bool {
  if (!isGuessed(work)) return false;
  if (gate) sumAs(x, g, gate, size, stride, his, work, GATED);
  else if (g) sumAs(x, g, gate, size, stride, his, work, SUMS);
  else sumAs(x, g, gate, size, stride, his, work, MOMENTS);
  if (!channels) unite(work);
  if (!isRight(work)) return false;
  leave(work, FAST, records, lane, channels, inner, 1);
  return true;
}

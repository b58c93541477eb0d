// Sums of a strip without rounding: of d and d^2, or of t and t * d; four lanes of some rows, as exact_strips.ts has gathered them.
//
// From the largest and the smallest exponent there are follows where the lowest bit of any term may lie. All values then have room in
// one float64 as a rule, and products in two (Rump, Ogita and Oishi 2008): what is added to a large number M loses what is below M's
// last place, which is what the next sum gets, and nothing is rounded in either. Where that is not enough, one more of each; and where
// neither is, or a term is not finite, each term goes into digits by itself.

import { addProduct, addTerms, addValue, RECORD } from "./digits";
import { FACTORS, FAST, M_PRODUCTS, M_RESTS, M_VALUES, plan, TERMS, TOTALS, unite, WIDE } from "./exact_plan";
import { MOMENTS, SUMS } from "./reduction";
import { zeros } from "./vectors";

/** Two terms from an address on: d itself, or t. */
// @ts-ignore: decorator
@inline
function termsAt(at: usize, kind: u32): v128 {
  return f64x2.promote_low_f32x4(kind == MOMENTS ? v128.load64_zero(at, FACTORS) : v128.load64_zero(at, FACTORS + TERMS));
}

/** Sums as planes of four float64: values, and the parts of products above the last place of M and below. */
// @ts-ignore: decorator
@inline
function sumFast(work: usize, size: usize, kind: u32): void {
  const m0 = v128.load(work, M_PRODUCTS), m1 = v128.load(work, M_PRODUCTS + 16);
  let h0 = m0, h1 = m1, l0 = zeros(), l1 = zeros(), s0 = zeros(), s1 = zeros();
  for (let at = work, end = work + size; at < end; at += 16) {
    const a0 = termsAt(at, kind), a1 = termsAt(at + 8, kind);
    const p0 = f64x2.mul(a0, kind == MOMENTS ? a0 : termsAt(at, MOMENTS));
    const p1 = f64x2.mul(a1, kind == MOMENTS ? a1 : termsAt(at + 8, MOMENTS));
    s0 = f64x2.add(s0, a0);
    s1 = f64x2.add(s1, a1);
    const t0 = f64x2.add(h0, p0), t1 = f64x2.add(h1, p1);
    l0 = f64x2.add(l0, f64x2.sub(p0, f64x2.sub(t0, h0)));
    l1 = f64x2.add(l1, f64x2.sub(p1, f64x2.sub(t1, h1)));
    h0 = t0;
    h1 = t1;
  }
  v128.store(work, s0, TOTALS);
  v128.store(work, s1, TOTALS + 16);
  v128.store(work, f64x2.sub(h0, m0), TOTALS + 32);
  v128.store(work, f64x2.sub(h1, m1), TOTALS + 48);
  v128.store(work, l0, TOTALS + 64);
  v128.store(work, l1, TOTALS + 80);
}

/** The same with one part more of values and of products, two lanes at a time. */
// @ts-ignore: decorator
@inline
function sumWide(work: usize, size: usize, kind: u32): void {
  for (let half: usize = 0; half < 2; half++) {
    const planes = work + (half << 4);
    const m = v128.load(planes, M_PRODUCTS), mr = v128.load(planes, M_RESTS), mv = v128.load(planes, M_VALUES);
    let h = m, r = mr, l = zeros(), v = mv, s = zeros();
    for (let at = work + (half << 3), end = at + size; at < end; at += 16) {
      const a = termsAt(at, kind), p = f64x2.mul(a, kind == MOMENTS ? a : termsAt(at, MOMENTS));
      const v1 = f64x2.add(v, a), h1 = f64x2.add(h, p);
      s = f64x2.add(s, f64x2.sub(a, f64x2.sub(v1, v)));
      const rest = f64x2.sub(p, f64x2.sub(h1, h)), r1 = f64x2.add(r, rest);
      l = f64x2.add(l, f64x2.sub(rest, f64x2.sub(r1, r)));
      v = v1;
      h = h1;
      r = r1;
    }
    v128.store(planes, s, TOTALS);
    v128.store(planes, f64x2.sub(h, m), TOTALS + 32);
    v128.store(planes, l, TOTALS + 64);
    v128.store(planes, f64x2.sub(v, mv), TOTALS + 96);
    v128.store(planes, f64x2.sub(r, mr), TOTALS + 128);
  }
}

/** A plane of sums: all four lanes, which are one channel's; they have room in one float64. */
// @ts-ignore: decorator
@inline
function allOf(work: usize, plane: usize): f64 {
  const both = f64x2.add(v128.load(work + plane, TOTALS), v128.load(work + plane, TOTALS + 16));
  return f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1);
}

/** Adds the sums of lanes of one channel to its record, `scale` times: a power of two. */
function leaveOne(work: usize, way: u32, record: usize, scale: f64): void {
  addValue(record, allOf(work, 0) * scale);
  addProduct(record, allOf(work, 32) * scale);
  addProduct(record, allOf(work, 64) * scale);
  if (way == FAST) return;
  addValue(record, allOf(work, 96) * scale);
  addProduct(record, allOf(work, 128) * scale);
}

/** Adds the sums of each lane to the record of its channel. */
function leaveLanes(work: usize, way: u32, records: usize, lane: u32, channels: u32, inner: u32, scale: f64): void {
  let c = (lane / inner) % channels;
  for (let j: u32 = 0; j < 4; j++) {
    const record = inner == 1 ? records + <usize> c * RECORD : recordOf(records, lane + j, channels, inner);
    if (++c == channels) c = 0;
    const at = work + (<usize> j << 3);
    addValue(record, load<f64>(at, TOTALS) * scale);
    addProduct(record, load<f64>(at, TOTALS + 32) * scale);
    addProduct(record, load<f64>(at, TOTALS + 64) * scale);
    if (way == FAST) continue;
    addValue(record, load<f64>(at, TOTALS + 96) * scale);
    addProduct(record, load<f64>(at, TOTALS + 128) * scale);
  }
}

/** Adds the sums of a strip: of one channel where `channels` is 0, or else of each lane, from `lane` on; `scale` times. */
export function leave(work: usize, way: u32, records: usize, lane: u32, channels: u32, inner: u32, scale: f64): void {
  if (channels) leaveLanes(work, way, records, lane, channels, inner, scale);
  else leaveOne(work, way, records, scale);
}

/** The record of the channel that a lane belongs to. */
// @ts-ignore: decorator
@inline
export function recordOf(records: usize, lane: u32, channels: u32, inner: u32): usize {
  return records + <usize> ((lane / inner) % channels) * RECORD;
}

/** Adds one element: d and d^2, or t and t * d; a t of 0 is left out, as d may be infinite where no gradient flows. */
export function addElement(d: f32, t: f32, isMoments: bool, record: usize, scale: f64): void {
  if (isMoments) addTerms(record, <f64> d * scale, <f64> d * <f64> d * scale);
  else if (t != 0) addTerms(record, <f64> t * scale, <f64> t * <f64> d * scale);
}

function addSlowly(work: usize, size: usize, isMoments: bool, records: usize, lane: u32, channels: u32, inner: u32, scale: f64): void {
  for (let at: usize = 0; at < size; at += 4) {
    const record = channels ? recordOf(records, lane + (<u32> (at >> 2) & 3), channels, inner) : records;
    addElement(load<f32>(work + at, FACTORS), load<f32>(work + at, FACTORS + TERMS), isMoments, record, scale);
  }
}

/**
 * Adds a strip of so many bytes: in one channel's record where `channels` is 0; or else each lane in its own, from `lane` on. It
 * counts `scale` times, a power of two; its ranges are in the scratch memory.
 */
export function addStrip(
  work: usize, size: usize, isMoments: bool, records: usize, lane: u32, channels: u32, inner: u32, scale: f64,
): void {
  if (!channels) unite(work);
  const way = plan(work);
  if (way == FAST) {
    if (isMoments) sumFast(work, size, MOMENTS);
    else sumFast(work, size, SUMS);
  } else if (way == WIDE) {
    if (isMoments) sumWide(work, size, MOMENTS);
    else sumWide(work, size, SUMS);
  } else return addSlowly(work, size, isMoments, records, lane, channels, inner, scale);
  leave(work, way, records, lane, channels, inner, scale);
}

// Sums of a strip without rounding: four lanes of some rows, of x and x^2, or of g and g * (x - hi).
//
// A look over the strip finds the largest and the smallest exponent there are, and so where the lowest bit of any term may lie. All
// of its values then have room in one float64 as a rule, and its products in two (Rump, Ogita and Oishi 2008): what is added to a
// large number M loses what is below M's last place, which is what the next sum gets, and nothing is rounded in either. Where that
// is not enough, one more of each; and where neither is, or a term is not finite, each term goes into digits by itself.

import { addProduct, addTerms, addValue, RECORD } from "./digits";
import { FAST, M_PRODUCTS, M_RESTS, M_VALUES, plan, RANGES, TAIL, TOTALS, unite, WIDE } from "./exact_plan";
import { MOMENTS, SUMS, term } from "./reduction";
import { bytes, zeros } from "./vectors";

/** x, or x - hi. */
// @ts-ignore: decorator
@inline
function deviation(x: usize, hi: v128, kind: u32): v128 {
  return kind == MOMENTS ? v128.load(x) : f32x4.sub(v128.load(x), hi);
}

/** Largest bits of sizes and smallest ones but 0, less 1, of both factors. */
// @ts-ignore: decorator
@inline
function look(
  x: usize, g: usize, gate: usize, height: usize, stride: usize, hi: v128, tail: bool, work: usize, kind: u32,
): void {
  const size = i32x4.splat(0x7fffffff), one = i32x4.splat(1);
  let most = zeros(), least = i32x4.splat(-1), mostG = most, leastG = least;
  for (let end = x + height;; end = x + stride) {
    for (; x < end; x += stride, g += stride, gate += stride) {
      const d = deviation(x, hi, kind);
      const a = v128.and(d, size);
      most = i32x4.max_u(most, a);
      least = i32x4.min_u(least, i32x4.sub(a, one));
      if (kind != MOMENTS) {
        const b = v128.and(term(d, g, gate, kind), size);
        mostG = i32x4.max_u(mostG, b);
        leastG = i32x4.min_u(leastG, i32x4.sub(b, one));
      }
    }
    if (!tail) break;
    tail = false;
    x = work + TAIL;
    g = x + 16;
    gate = x + 32;
  }
  v128.store(work, most, RANGES);
  v128.store(work, least, RANGES + 16);
  v128.store(work, kind == MOMENTS ? most : mostG, RANGES + 32);
  v128.store(work, kind == MOMENTS ? least : leastG, RANGES + 48);
}

/** Sums as planes of four float64: values, and the parts of products above the last place of M and below. */
// @ts-ignore: decorator
@inline
function sumFast(
  x: usize, g: usize, gate: usize, height: usize, stride: usize, hi: v128, tail: bool, work: usize, kind: u32,
): void {
  const m0 = v128.load(work, M_PRODUCTS), m1 = v128.load(work, M_PRODUCTS + 16);
  let h0 = m0, h1 = m1, l0 = zeros(), l1 = zeros(), s0 = zeros(), s1 = zeros();
  for (let end = x + height;; end = x + stride) {
    for (; x < end; x += stride, g += stride, gate += stride) {
      let a0: v128, a1: v128, p0: v128, p1: v128;
      if (kind == MOMENTS) {
        a0 = f64x2.promote_low_f32x4(v128.load64_zero(x));
        a1 = f64x2.promote_low_f32x4(v128.load64_zero(x, 8));
        p0 = f64x2.mul(a0, a0);
        p1 = f64x2.mul(a1, a1);
      } else {
        const d = deviation(x, hi, kind), t = term(d, g, gate, kind);
        a0 = f64x2.promote_low_f32x4(t);
        a1 = f64x2.promote_low_f32x4(v128.shuffle<u64>(t, t, 1, 1));
        p0 = f64x2.mul(a0, f64x2.promote_low_f32x4(d));
        p1 = f64x2.mul(a1, f64x2.promote_low_f32x4(v128.shuffle<u64>(d, d, 1, 1)));
      }
      s0 = f64x2.add(s0, a0);
      s1 = f64x2.add(s1, a1);
      const t0 = f64x2.add(h0, p0), t1 = f64x2.add(h1, p1);
      l0 = f64x2.add(l0, f64x2.sub(p0, f64x2.sub(t0, h0)));
      l1 = f64x2.add(l1, f64x2.sub(p1, f64x2.sub(t1, h1)));
      h0 = t0;
      h1 = t1;
    }
    if (!tail) break;
    tail = false;
    x = work + TAIL;
    g = x + 16;
    gate = x + 32;
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
function sumWide(
  x: usize, g: usize, gate: usize, height: usize, stride: usize, hi: v128, tail: bool, work: usize, kind: u32,
): void {
  for (let half: usize = 0; half < 32; half += 16) {
    const m = v128.load(work + half, M_PRODUCTS), mr = v128.load(work + half, M_RESTS);
    const mv = v128.load(work + half, M_VALUES);
    let h = m, r = mr, l = zeros(), v = mv, s = zeros();
    let at = x, atG = g, atGate = gate, more = tail;
    for (let end = at + height;; end = at + stride) {
      for (; at < end; at += stride, atG += stride, atGate += stride) {
        let d = deviation(at, hi, kind), t = term(d, atG, atGate, kind);
        if (half) {
          d = v128.shuffle<u64>(d, d, 1, 1);
          t = v128.shuffle<u64>(t, t, 1, 1);
        }
        const a = f64x2.promote_low_f32x4(t), p = f64x2.mul(a, f64x2.promote_low_f32x4(d));
        const v1 = f64x2.add(v, a), h1 = f64x2.add(h, p);
        s = f64x2.add(s, f64x2.sub(a, f64x2.sub(v1, v)));
        const rest = f64x2.sub(p, f64x2.sub(h1, h)), r1 = f64x2.add(r, rest);
        l = f64x2.add(l, f64x2.sub(rest, f64x2.sub(r1, r)));
        v = v1;
        h = h1;
        r = r1;
      }
      if (!more) break;
      more = false;
      at = work + TAIL;
      atG = at + 16;
      atGate = at + 32;
    }
    v128.store(work + half, s, TOTALS);
    v128.store(work + half, f64x2.sub(h, m), TOTALS + 32);
    v128.store(work + half, l, TOTALS + 64);
    v128.store(work + half, f64x2.sub(v, mv), TOTALS + 96);
    v128.store(work + half, f64x2.sub(r, mr), TOTALS + 128);
  }
}

/** A plane of sums: all four lanes, which are one channel's; they have room in one float64. */
// @ts-ignore: decorator
@inline
function allOf(work: usize, plane: usize): f64 {
  const both = f64x2.add(v128.load(work + plane, TOTALS), v128.load(work + plane, TOTALS + 16));
  return f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1);
}

/** Adds the sums of lanes of one channel to its record. */
function leaveOne(work: usize, way: u32, record: usize): void {
  addValue(record, allOf(work, 0));
  addProduct(record, allOf(work, 32));
  addProduct(record, allOf(work, 64));
  if (way == FAST) return;
  addValue(record, allOf(work, 96));
  addProduct(record, allOf(work, 128));
}

/** Adds the sums of each lane to the record of its channel. */
function leaveLanes(work: usize, way: u32, records: usize, lane: u32, channels: u32, inner: u32): void {
  let c = (lane / inner) % channels;
  for (let j: u32 = 0; j < 4; j++) {
    const record = inner == 1 ? records + <usize> c * RECORD : recordOf(records, lane + j, channels, inner);
    if (++c == channels) c = 0;
    const at = work + (<usize> j << 3);
    addValue(record, load<f64>(at, TOTALS));
    addProduct(record, load<f64>(at, TOTALS + 32));
    addProduct(record, load<f64>(at, TOTALS + 64));
    if (way == FAST) continue;
    addValue(record, load<f64>(at, TOTALS + 96));
    addProduct(record, load<f64>(at, TOTALS + 128));
  }
}

/** The record of the channel that a lane belongs to. */
// @ts-ignore: decorator
@inline
export function recordOf(records: usize, lane: u32, channels: u32, inner: u32): usize {
  return records + <usize> ((lane / inner) % channels) * RECORD;
}

/** Adds one element: x and x^2, or g and g * (x - hi); a g of 0 is left out, as x may be infinite where no gradient flows. */
export function addElement(x: f32, g: f32, hi: f32, isMoments: bool, record: usize): void {
  if (isMoments) addTerms(record, <f64> x, <f64> x * <f64> x);
  else if (g != 0) addTerms(record, <f64> g, <f64> g * <f64> (x - hi));
}

/** One element of dy behind its gate. */
// @ts-ignore: decorator
@inline
export function gradientAt(g: usize, gate: usize): f32 {
  return g && !(gate && !(load<f32>(gate) > 0)) ? load<f32>(g) : 0;
}

/**
 * Adds a strip: four lanes of rows that lie `stride` bytes apart, in all `height`; with `tail` one more, from the scratch memory. In
 * one channel's record where `channels` is 0; or else of each lane in its own, from `lane` on. g and gate are 0 where there are none;
 * `his` are four means as float32, which those of g are about.
 */
export function addStrip(
  x: usize, g: usize, gate: usize, height: usize, stride: usize, his: usize, tail: bool, work: usize, records: usize,
  lane: u32, channels: u32, inner: u32,
): void {
  const hi = v128.load(his);
  const kind = gate ? 2 : g ? SUMS : MOMENTS;
  if (kind == MOMENTS) look(x, g, gate, height, stride, hi, tail, work, MOMENTS);
  else if (kind == SUMS) look(x, g, gate, height, stride, hi, tail, work, SUMS);
  else look(x, g, gate, height, stride, hi, tail, work, 2);
  if (!channels) unite(work);
  const way = plan(work);
  if (way == FAST) {
    if (kind == MOMENTS) sumFast(x, g, gate, height, stride, hi, tail, work, MOMENTS);
    else if (kind == SUMS) sumFast(x, g, gate, height, stride, hi, tail, work, SUMS);
    else sumFast(x, g, gate, height, stride, hi, tail, work, 2);
  } else if (way == WIDE) {
    if (kind == MOMENTS) sumWide(x, g, gate, height, stride, hi, tail, work, MOMENTS);
    else if (kind == SUMS) sumWide(x, g, gate, height, stride, hi, tail, work, SUMS);
    else sumWide(x, g, gate, height, stride, hi, tail, work, 2);
  } else {
    return addSlowly(x, g, gate, height, stride, his, tail, work, records, lane, channels, inner);
  }
  if (channels) leaveLanes(work, way, records, lane, channels, inner);
  else leaveOne(work, way, records);
}

function addSlowly(
  x: usize, g: usize, gate: usize, height: usize, stride: usize, his: usize, tail: bool, work: usize, records: usize,
  lane: u32, channels: u32, inner: u32,
): void {
  for (let end = x + height;; end = x + stride) {
    for (; x < end; x += stride) {
      for (let j: u32 = 0; j < 4; j++) {
        const at = bytes(j);
        const record = channels ? recordOf(records, lane + j, channels, inner) : records;
        const gradient = gradientAt(g ? g + at : 0, gate ? gate + at : 0);
        addElement(load<f32>(x + at), gradient, load<f32>(his + at), !g, record);
      }
      if (g) g += stride;
      if (gate) gate += stride;
    }
    if (!tail) break;
    tail = false;
    x = work + TAIL;
    if (g) g = x + 16;
    if (gate) gate = x + 32;
  }
}

// Weights of sums without rounding: whole numbers from 0 to 2^24, one for each place. A strip is summed once for each bit that one of
// its weights has, over those elements that have it, and counts as often as the bit weighs: a mask costs one sum.

import { ALL_TERMS, FACTORS, TERMS, WEIGHTS } from "./exact_plan";
import { addStrip } from "./exact_sums";
import { bytes, loadRest, zeros } from "./vectors";

const MOST: f32 = 16777216;

/** Writes how many weights are positive, and their sum, NaN where one is no whole number from 0 to 2^24. */
export function weighExactly(weights: usize, length: u32, totals: usize): void {
  let positives: u32 = 0, sum: u64 = 0, areAll = true;
  for (const end = weights + bytes(length); weights < end; weights += 4) {
    const weight = load<f32>(weights);
    positives += u32(weight > 0);
    areAll = areAll && weight >= 0 && weight <= MOST && nearest<f32>(weight) == weight;
    if (areAll) sum += <u64> weight;
  }
  store<f64>(totals, <f64> positives);
  store<f64>(totals, areAll ? <f64> sum : NaN, 8);
}

/** Reads weights that lie side by side, `count` of them, as whole numbers; gives all bits that they have. */
export function readWeights(weights: usize, count: u32, work: usize): u32 {
  let any = zeros(), to = work + FACTORS;
  for (const end = weights + bytes(count & ~3); weights < end; weights += 16, to += 16) {
    const w = i32x4.trunc_sat_f32x4_u(v128.load(weights));
    any = v128.or(any, w);
    v128.store(to, w, WEIGHTS);
  }
  if (count & 3) {
    const w = i32x4.trunc_sat_f32x4_u(loadRest(weights, count & 3));
    any = v128.or(any, w);
    v128.store(to, w, WEIGHTS);
  }
  return bitsOf(any);
}

/** The same of four lanes from an element on, in rows that are `step` places apart. */
export function readLanes(
  weights: usize, element: u32, step: u32, size: usize, channels: u32, inner: u32, work: usize,
): u32 {
  const a = weights + bytes(placeOf(element, channels, inner)), b = weights + bytes(placeOf(element + 1, channels, inner));
  const c = weights + bytes(placeOf(element + 2, channels, inner)), d = weights + bytes(placeOf(element + 3, channels, inner));
  let any = zeros(), row: usize = 0;
  for (let to = work + FACTORS, end = to + size; to < end; to += 16, row += bytes(step)) {
    let w = v128.load32_lane(b + row, v128.load32_zero(a + row), 1);
    w = i32x4.trunc_sat_f32x4_u(v128.load32_lane(d + row, v128.load32_lane(c + row, w, 2), 3));
    any = v128.or(any, w);
    v128.store(to, w, WEIGHTS);
  }
  return bitsOf(any);
}

// @ts-ignore: decorator
@inline
function bitsOf(any: v128): u32 {
  return i32x4.extract_lane(any, 0) | i32x4.extract_lane(any, 1) | i32x4.extract_lane(any, 2) | i32x4.extract_lane(any, 3);
}

/** The place of an element, which has a weight for all channels; neighbouring channels lie `inner` elements apart. */
export function placeOf(element: u32, channels: u32, inner: u32): u32 {
  return element / (channels * inner) * inner + element % inner;
}

/** The weight of an element; 0 for what is none. */
export function weightAt(weights: usize, element: u32, channels: u32, inner: u32): u32 {
  const weight = load<f32>(weights + bytes(placeOf(element, channels, inner)));
  return weight >= 0 && weight <= MOST ? <u32> weight : 0;
}

/**
 * Adds the strip that was gathered, as addStrip does, by the weights that were read, whole numbers with these bits: for each bit those
 * elements that have it, that often. Ranges of all elements hold for some.
 */
export function addWeighted(
  bits: u32, work: usize, size: usize, isMoments: bool, records: usize, lane: u32, channels: u32, inner: u32,
): void {
  const all = work + FACTORS + ALL_TERMS, chosen = work + FACTORS + (isMoments ? 0 : TERMS);
  memory.copy(all, chosen, size);
  for (; bits; bits &= bits - 1) {
    const bit = ctz(bits);
    for (let at: usize = 0; at < size; at += 16) {
      const has = i32x4.shr_s(i32x4.shl(v128.load(work + at, FACTORS + WEIGHTS), 31 - bit), 31);
      v128.store(chosen + at, v128.and(v128.load(all + at), has));
    }
    addStrip(work, size, isMoments, records, lane, channels, inner, <f64> (<u64> 1 << bit));
  }
}

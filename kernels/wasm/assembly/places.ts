// Weights of places beside the elements that count by them: float32, one for each sample and place, the same for all channels.

import { valueAt, widen } from "./storage";
import { bytes, loadRest, storeRest, zeros } from "./vectors";

/** v by its weights, and 0 where that is none: NaN too. */
// @ts-ignore: decorator
@inline
export function counted(v: v128, weights: v128): v128 {
  return v128.and(v, f32x4.gt(weights, zeros()));
}

/**
 * Where the weights of elements [from, from + length) can be read, side by side: where they lie if those are of one channel and
 * sample, or else in scratch memory, which has room for a vector more. Neighbouring channels lie `inner` elements apart.
 */
export function weightsAt(weights: usize, from: u32, length: u32, channels: u32, inner: u32, scratch: usize): usize {
  const row = from / inner;
  let i = from - row * inner, c = row % channels, place = weights + bytes(row / channels * inner);
  if (channels == 1 || i + length <= inner) return place + bytes(i);
  let to = scratch;
  for (const end = to + bytes(length); to < end;) {
    if (inner == 1) {
      // What is too much of a vector is written over, or lies behind the end.
      const w = v128.load32_splat(place), next = to + bytes(channels - c);
      for (const stop = min(next, end); to < stop; to += 16) v128.store(to, w);
      to = next;
      c = channels;
    } else {
      for (const stop = min(to + bytes(inner - i), end); to < stop; to += 4, i++) store<f32>(to, load<f32>(place + bytes(i)));
      i = 0;
      c++;
    }
    if (c == channels) {
      c = 0;
      place += bytes(inner);
    }
  }
  return scratch;
}

/** Multiplies a run by its weights, into the same memory or another's; what has none becomes 0, whatever it is. */
export function multiply(run: usize, weights: usize, length: u32, to: usize): void {
  for (const end = run + bytes(length & ~3); run < end; run += 16, weights += 16, to += 16) {
    const w = v128.load(weights);
    v128.store(to, counted(f32x4.mul(v128.load(run), w), w));
  }
  const rest = length & 3;
  if (rest == 0) return;
  const w = loadRest(weights, rest);
  storeRest(to, counted(f32x4.mul(loadRest(run, rest), w), w), rest);
}

/** Writes weights as float32 for each place; they are float16 where `half`, and of whole samples where `perSample`. */
export function spreadWeights(weights: usize, half: bool, perSample: bool, batch: u32, inner: u32, to: usize): void {
  if (!perSample) return widen(weights, to, batch * inner);
  for (let n: u32 = 0; n < batch; n++) {
    const weight = <f32> valueAt(weights, n, half);
    for (let i: u32 = 0; i < inner; i++, to += 4) store<f32>(to, weight);
  }
}

/** Writes how many weights are positive, and their sum, NaN where one is no weight. */
export function weigh(weights: usize, length: u32, totals: usize): void {
  const sum = sumOf(weights, length);
  let positives = i32x4.splat(0), areAll = i32x4.splat(-1);
  for (let i: u32 = 0; i < length; i += 4, weights += 16) {
    const w = length - i < 4 ? loadRest(weights, length - i) : v128.load(weights);
    positives = i32x4.sub(positives, f32x4.gt(w, zeros()));
    areAll = v128.and(areAll, v128.and(f32x4.ge(w, zeros()), f32x4.lt(w, f32x4.splat(Infinity))));
  }
  const count = i32x4.extract_lane(positives, 0) + i32x4.extract_lane(positives, 1) +
    i32x4.extract_lane(positives, 2) + i32x4.extract_lane(positives, 3);
  store<f64>(totals, <f64> count);
  store<f64>(totals, i32x4.all_true(areAll) ? sum : NaN, 8);
}

/** Sum of weights in float64. */
export function sumOf(weights: usize, length: u32): f64 {
  let low = f64x2.splat(0), high = low;
  for (let i: u32 = 0; i < length; i += 4, weights += 16) {
    const w = length - i < 4 ? loadRest(weights, length - i) : v128.load(weights);
    low = f64x2.add(low, f64x2.promote_low_f32x4(w));
    high = f64x2.add(high, f64x2.promote_low_f32x4(i8x16.shuffle(w, w, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15)));
  }
  const sum = f64x2.add(low, high);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

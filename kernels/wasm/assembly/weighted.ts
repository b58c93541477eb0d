// Batches whose examples have weights: moments by them, and the gradient of the input, whose terms behind dy they scale. Weights
// are float32, one for each sample and place, the same for all channels; what has none is left out, whatever it is.
//
// Where a channel's elements lie side by side, a row is one channel of one sample, and its weights lie beside it. Where channels
// do, a row is one place, and has one weight. Both sum in float32 about a shift, as reduction.ts and columns.ts say, which is the
// mean of the first elements by their weights; sums are taken into float64 before they lose digits.

import { MOST_SUMMED, STRIP } from "./columns";
import { wide } from "./pairs";
import { counted } from "./places";
import { mergeTile } from "./reduce_columns";
import { ENOUGH, RUN } from "./reduce_rows";
import { Channel, leave, merge } from "./reduction";
import { address, further, MOST, narrow, readable, valueAt, widen } from "./storage";
import { bytes, increase, loadRest, madd, storeRest, through, total, zeros } from "./vectors";

/** Rows of a tile of places, and of a block of them that shares coefficients. */
const TILE: u32 = 128;
const PLACES: u32 = 16;

/** A channel's record, and the weights of what is pending. */
@unmanaged
class Weighted extends Channel {
  weight: f64;
}

/** Bytes of it, and of nothing. */
const RECORD: usize = 80;

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

/**
 * Moments of samples [from, to) of (N, channels, inner), or of places [from, to) of (places, channels) where `last`, by the
 * weights; `scratch` has room for 80 bytes per channel, rounded up to whole vectors, MOST float32 and a float64 per RUN of inner.
 */
export function reduceWeighted(
  x: usize, half: bool, last: bool, channels: u32, inner: u32, from: u32, to: u32, weights: usize, result: usize,
  counts: usize, scratch: usize,
): void {
  if (last) placesOf(x, half, channels, from, to, weights, result, counts, scratch);
  else rowsOf(x, half, channels, inner, from, to, weights, result, counts, scratch);
}

function rowsOf(
  x: usize, half: bool, channels: u32, inner: u32, from: u32, to: u32, weights: usize, result: usize, counts: usize,
  scratch: usize,
): void {
  const end = scratch + <usize> channels * RECORD;
  const runs = end + bytes(MOST);
  memory.fill(scratch, 0, end - scratch);
  for (let n = from; n < to; n++) {
    const own = weights + bytes(n * inner);
    for (let i: u32 = 0; i < inner; i += RUN) store<f64>(wide(runs, i / RUN), sumOf(own + bytes(i), min(inner - i, RUN)));
    for (let c: u32 = 0; c < channels; c++) {
      const channel = changetype<Weighted>(scratch + <usize> c * RECORD);
      for (let i: u32 = 0; i < inner; i += RUN) {
        const weight = load<f64>(wide(runs, i / RUN));
        if (!(weight > 0)) continue;
        const length = min(inner - i, RUN);
        const run = readable(x, (n * channels + c) * inner + i, length, half, end);
        const by = own + bytes(i);
        if (channel.count == 0 && channel.pending == 0) {
          channel.shift = load<f32>(run + firstOf(by));
          add(channel, run, by, length);
          channel.shift = <f32> (<f64> channel.shift + total(channel.sum) / weight);
          channel.sum = channel.products = zeros();
        }
        add(channel, run, by, length);
        channel.weight += weight;
        channel.pending += length;
        if (channel.pending >= ENOUGH) settle(channel);
      }
    }
  }
  for (let c: u32 = 0; c < channels; c++) {
    const channel = changetype<Weighted>(scratch + <usize> c * RECORD);
    if (channel.pending > 0) settle(channel);
    leave(channel, channels, c, result, counts);
  }
}

/** Takes what is pending, as `settle` of reduction.ts does. */
function settle(channel: Weighted): void {
  const sum = total(channel.sum);
  const offset = sum / channel.weight;
  const m2 = max<f64>(total(channel.products) - sum * offset, 0);
  merge(channel, channel.weight, <f64> channel.shift + offset, m2);
  channel.shift = <f32> channel.first;
  channel.pending = 0;
  channel.weight = 0;
  channel.sum = channel.products = zeros();
}

/** Sum of weights in float64. */
function sumOf(weights: usize, length: u32): f64 {
  let low = f64x2.splat(0), high = low;
  for (let i: u32 = 0; i < length; i += 4, weights += 16) {
    const w = length - i < 4 ? loadRest(weights, length - i) : v128.load(weights);
    low = f64x2.add(low, f64x2.promote_low_f32x4(w));
    high = f64x2.add(high, f64x2.promote_low_f32x4(i8x16.shuffle(w, w, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15)));
  }
  const sum = f64x2.add(low, high);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

/** Where the first positive weight lies behind the first of all; there is one. */
function firstOf(weights: usize): usize {
  let at: usize = 0;
  while (!(load<f32>(weights + at) > 0)) at += 4;
  return at;
}

/** Adds a run to the lanes of its channel. */
function add(channel: Weighted, x: usize, weights: usize, length: u32): void {
  const shift = f32x4.splat(channel.shift);
  let s0 = zeros(), s1 = s0, s2 = s0, s3 = s0, q0 = s0, q1 = s0, q2 = s0, q3 = s0;
  const vectors = x + bytes(length & ~3);
  for (const end = x + bytes(length & ~15); x < end; x += 64, weights += 64) {
    const w0 = v128.load(weights), d0 = counted(f32x4.sub(v128.load(x), shift), w0), g0 = f32x4.mul(d0, w0);
    const w1 = v128.load(weights, 16), d1 = counted(f32x4.sub(v128.load(x, 16), shift), w1), g1 = f32x4.mul(d1, w1);
    const w2 = v128.load(weights, 32), d2 = counted(f32x4.sub(v128.load(x, 32), shift), w2), g2 = f32x4.mul(d2, w2);
    const w3 = v128.load(weights, 48), d3 = counted(f32x4.sub(v128.load(x, 48), shift), w3), g3 = f32x4.mul(d3, w3);
    s0 = f32x4.add(s0, g0);
    q0 = madd(g0, d0, q0);
    s1 = f32x4.add(s1, g1);
    q1 = madd(g1, d1, q1);
    s2 = f32x4.add(s2, g2);
    q2 = madd(g2, d2, q2);
    s3 = f32x4.add(s3, g3);
    q3 = madd(g3, d3, q3);
  }
  for (; x < vectors; x += 16, weights += 16) {
    const w = v128.load(weights), d = counted(f32x4.sub(v128.load(x), shift), w), g = f32x4.mul(d, w);
    s0 = f32x4.add(s0, g);
    q0 = madd(g, d, q0);
  }
  const rest = length & 3;
  if (rest > 0) {
    const w = loadRest(weights, rest), d = counted(f32x4.sub(loadRest(x, rest), shift), w), g = f32x4.mul(d, w);
    s1 = f32x4.add(s1, g);
    q1 = madd(g, d, q1);
  }
  channel.sum = f32x4.add(channel.sum, f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  channel.products = f32x4.add(channel.products, f32x4.add(f32x4.add(q0, q1), f32x4.add(q2, q3)));
}

function placesOf(
  x: usize, half: bool, channels: u32, from: u32, to: u32, weights: usize, result: usize, counts: usize, scratch: usize,
): void {
  const lanes = (channels + 3) & ~3;
  const plane = bytes(lanes);
  const means = scratch, sums = scratch + 4 * plane, shifts = sums + 2 * plane;
  const widened = scratch + <usize> lanes * RECORD;
  memory.fill(scratch, 0, 7 * plane);
  let before: f64 = 0;
  for (let row = from; row < to;) {
    // The first rows are few, and have weights: their mean is the shift of all, wherever the first of them lies.
    const by = weights + bytes(row);
    if (before == 0 && !(load<f32>(by) > 0)) {
      row++;
      continue;
    }
    const rows = min(to - row, before == 0 ? MOST_SUMMED : TILE);
    const weight = sumOf(by, rows);
    if (before == 0) {
      addRow(x, half, channels, row, shifts);
      addPlaces(x, half, channels, row, rows, by, shifts, sums, plane, widened);
      const share = f32x4.splat(<f32> (1 / weight));
      for (let j: usize = 0; j < plane; j += 16) {
        v128.store(shifts + j, madd(v128.load(sums + j), share, v128.load(shifts + j)));
      }
      memory.fill(sums, 0, 2 * plane);
    }
    addPlaces(x, half, channels, row, rows, by, shifts, sums, plane, widened);
    if (weight > 0) mergeTile(lanes, before, weight, shifts, sums, means);
    before += weight;
    row += rows;
  }
  for (let c: u32 = 0; c < channels; c++) {
    store<f64>(wide(result, c), load<f64>(wide(means, c)));
    store<f64>(wide(result, channels + c), load<f64>(wide(means, lanes + c)));
    store<f64>(wide(counts, c), before);
  }
}

/** Copies one row of float32, or of float16, into a plane. */
function addRow(x: usize, half: bool, channels: u32, row: u32, to: usize): void {
  const from = readable(x, row * channels, channels, half, to);
  if (!half) memory.copy(to, from, bytes(channels));
}

/** Adds rows to the sums of their lanes, a few lanes at a time, in registers for as many rows as their digits allow. */
function addPlaces(
  x: usize, half: bool, channels: u32, row: u32, rows: u32, weights: usize, shifts: usize, sums: usize, plane: usize,
  widened: usize,
): void {
  const most: u32 = half ? MOST / MOST_SUMMED : channels;
  for (let done: u32 = 0; done < rows; done += MOST_SUMMED) {
    const some = min(rows - done, MOST_SUMMED);
    for (let first: u32 = 0; first < channels; first += most) {
      const lanes = min(channels - first, most);
      const stride = bytes(half ? most : channels);
      let from = x + bytes((row + done) * channels);
      if (half) {
        for (let r: u32 = 0; r < some; r++) readable(x, (row + done + r) * channels + first, lanes, true, widened + <usize> r * stride);
        from = widened;
      }
      addStrips(from, stride, some, lanes, weights + bytes(done), shifts + bytes(first), sums + bytes(first), plane);
    }
  }
}

/** Strip by strip, whose sums are in registers; then vector by vector. */
function addStrips(
  x: usize, stride: usize, rows: u32, lanes: u32, weights: usize, shifts: usize, sums: usize, plane: usize,
): void {
  const height = <usize> rows * stride;
  let j: usize = 0;
  for (const whole = bytes(lanes & ~(STRIP - 1)); j < whole; j += bytes(STRIP)) {
    const h0 = v128.load(shifts + j), h1 = v128.load(shifts + j, 16);
    const h2 = v128.load(shifts + j, 32), h3 = v128.load(shifts + j, 48);
    let s0 = zeros(), s1 = s0, s2 = s0, s3 = s0, q0 = s0, q1 = s0, q2 = s0, q3 = s0;
    let by = weights;
    for (let at = x + j, end = at + height; at < end; at += stride, by += 4) {
      const w = v128.load32_splat(by);
      const d0 = counted(f32x4.sub(v128.load(at), h0), w), g0 = f32x4.mul(d0, w);
      s0 = f32x4.add(s0, g0);
      q0 = madd(g0, d0, q0);
      const d1 = counted(f32x4.sub(v128.load(at, 16), h1), w), g1 = f32x4.mul(d1, w);
      s1 = f32x4.add(s1, g1);
      q1 = madd(g1, d1, q1);
      const d2 = counted(f32x4.sub(v128.load(at, 32), h2), w), g2 = f32x4.mul(d2, w);
      s2 = f32x4.add(s2, g2);
      q2 = madd(g2, d2, q2);
      const d3 = counted(f32x4.sub(v128.load(at, 48), h3), w), g3 = f32x4.mul(d3, w);
      s3 = f32x4.add(s3, g3);
      q3 = madd(g3, d3, q3);
    }
    increase(sums + j, s0, s1, s2, s3, true);
    increase(sums + plane + j, q0, q1, q2, q3, true);
  }
  for (; j < bytes(lanes); j += 16) {
    const shift = v128.load(shifts + j);
    const rest = lanes - <u32> (j >> 2);
    let sum = zeros(), products = zeros();
    for (let r: u32 = 0, at = x + j; r < rows; r++, at += stride) {
      const w = v128.load32_splat(weights + bytes(r));
      const d = counted(f32x4.sub(rest < 4 ? loadRest(at, rest) : v128.load(at), shift), w), g = f32x4.mul(d, w);
      sum = f32x4.add(sum, g);
      products = madd(g, d, products);
    }
    v128.store(sums + j, f32x4.add(v128.load(sums + j), sum));
    v128.store(sums + plane + j, f32x4.add(v128.load(sums + plane + j), products));
  }
}

/** Computes again, in float64 and by two passes, the moments of every channel whose mean or m2 is not finite. */
export function exactWeighted(
  x: usize, half: bool, last: bool, batch: u32, channels: u32, inner: u32, weights: usize, moments: usize,
): void {
  const count = load<f64>(moments);
  for (let c: u32 = 0; c < channels; c++) {
    const to = wide(moments + 8, c);
    if (isFinite<f64>(load<f64>(to)) && isFinite<f64>(load<f64>(to + wide(0, channels)))) continue;
    let mean: f64 = 0, m2: f64 = 0;
    for (let isSecond = 0; isSecond < 2; isSecond++) {
      for (let n: u32 = 0, p: u32 = 0; n < batch; n++) {
        for (let i: u32 = 0; i < inner; i++, p++) {
          const weight = <f64> load<f32>(weights + bytes(p));
          if (!(weight > 0)) continue;
          const value = valueAt(x, last ? p * channels + c : (n * channels + c) * inner + i, half);
          if (isSecond) m2 += weight * (value - mean) * (value - mean);
          else mean += weight * value / count;
        }
      }
    }
    store<f64>(to, mean);
    store<f64>(to + wide(0, channels), m2);
  }
}

/**
 * Computes samples, or places, [from, to) of dx, and with `passed` of the residual's gradient: scale * ((dy + w * offset)
 * + w * ((x - hi) * slope)), without what is behind dy where w is 0; where w is 1 it is what map.ts computes, to the last bit, as
 * long as nothing is fused. Coefficients are planes of float32 as map.ts has them; `scratch` has
 * room for 4 x MOST float32.
 */
export function mapWeighted(
  x: usize, dy: usize, output: usize, dx: usize, passed: usize, half: bool, last: bool, channels: u32, inner: u32,
  from: u32, to: u32, weights: usize, coefficients: usize, scratch: usize,
): void {
  const rows = last ? to - from : (to - from) * channels;
  const width = last ? channels : inner;
  const most = half ? MOST : width;
  const plane = bytes(channels), room = bytes(MOST);
  let first = from * (last ? channels : channels * inner);
  let by = weights + bytes(last ? from : from * inner);
  for (let row: u32 = 0, c: u32 = 0; row < rows;) {
    // Places share their channels' coefficients, as far as a block of them stays in the first cache.
    const height = last && !half ? min(rows - row, PLACES) : 1;
    for (let done: u32 = 0; done < width; done += most) {
      const length = min(width - done, most);
      const at = first + done;
      const g = readable(dy, at, length, half, scratch + room);
      const gate = output ? readable(output, at, length, half, scratch + 2 * room) : 0;
      const y = half ? scratch : address(dx, at, false);
      const through: usize = !passed ? <usize> 0 : half ? scratch + 3 * room : address(passed, at, false);
      const input = readable(x, at, length, half, scratch);
      if (last) places(input, g, gate, y, through, height, length, by, coefficients + bytes(done), plane);
      else run(input, g, gate, y, through, length, by + bytes(done), coefficients + bytes(c), plane);
      if (half) {
        narrow(y, address(dx, at, true), length);
        if (passed) narrow(through, address(passed, at, true), length);
      }
    }
    row += height;
    first += height * width;
    if (last) by += bytes(height);
    else if (++c == channels) {
      c = 0;
      by += bytes(inner);
    }
  }
}

/** One vector of dx, or its first elements, which memory ends with. */
// @ts-ignore: decorator
@inline
function step(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, h: v128, s: v128, o: v128, l: v128, w: v128, rest: u32,
): void {
  const whole = rest >= 4;
  let term = whole ? v128.load(g) : loadRest(g, rest);
  if (gate) term = through(term, whole ? v128.load(gate) : loadRest(gate, rest));
  const along = f32x4.mul(f32x4.sub(whole ? v128.load(x) : loadRest(x, rest), h), l);
  const moved = madd(along, w, madd(o, w, term));
  const result = f32x4.mul(v128.bitselect(moved, term, f32x4.gt(w, zeros())), s);
  if (whole) {
    v128.store(y, result);
    if (passed) v128.store(passed, term);
  } else {
    storeRest(y, result, rest);
    if (passed) storeRest(passed, term, rest);
  }
}

/** A run of one channel, whose elements have weights of their own. */
function run(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, weights: usize, at: usize, plane: usize,
): void {
  const h = v128.load32_splat(at), s = v128.load32_splat(at + plane), o = v128.load32_splat(at + 2 * plane);
  const l = v128.load32_splat(at + 3 * plane);
  let j: usize = 0;
  const whole = bytes(length & ~3);
  if (!gate && !passed) {
    for (; j < whole; j += 16) step(x + j, g + j, 0, y + j, 0, h, s, o, l, v128.load(weights + j), 4);
  }
  for (; j < whole; j += 16) {
    step(x + j, g + j, further(gate, j), y + j, further(passed, j), h, s, o, l, v128.load(weights + j), 4);
  }
  const rest = length & 3;
  if (rest) step(x + j, g + j, further(gate, j), y + j, further(passed, j), h, s, o, l, loadRest(weights + j, rest), rest);
}

/** Places of as many channels, each with one weight: two vectors at a time, where there is nothing else to read or write. */
function places(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, height: u32, channels: u32, weights: usize, at: usize,
  plane: usize,
): void {
  const stride = bytes(channels);
  let j: usize = 0;
  if (!gate && !passed) {
    for (const whole = stride & ~31; j < whole; j += 32) {
      const from = at + j, below = from + plane, third = below + plane, last = third + plane;
      const h0 = v128.load(from), s0 = v128.load(below), o0 = v128.load(third), l0 = v128.load(last);
      const h1 = v128.load(from, 16), s1 = v128.load(below, 16), o1 = v128.load(third, 16), l1 = v128.load(last, 16);
      let by = weights;
      for (let i = j, end = j + <usize> height * stride; i < end; i += stride, by += 4) {
        const w = v128.load32_splat(by);
        step(x + i, g + i, 0, y + i, 0, h0, s0, o0, l0, w, 4);
        step(x + i + 16, g + i + 16, 0, y + i + 16, 0, h1, s1, o1, l1, w, 4);
      }
    }
  }
  for (; j < stride; j += 16) {
    const h = v128.load(at + j), s = v128.load(at + plane + j), o = v128.load(at + 2 * plane + j);
    const l = v128.load(at + 3 * plane + j);
    const rest = channels - <u32> (j >> 2);
    let by = weights;
    for (let i = j, end = j + <usize> height * stride; i < end; i += stride, by += 4) {
      step(x + i, g + i, further(gate, i), y + i, further(passed, i), h, s, o, l, v128.load32_splat(by), rest);
    }
  }
}

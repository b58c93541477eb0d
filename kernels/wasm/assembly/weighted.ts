// Batches whose examples have weights: moments by them, and the gradient of the input, whose terms behind dy they scale. Weights
// are float32, one for each sample and place, the same for all channels; what has none is left out, whatever it is.
//
// Where a channel's elements lie side by side, a row is one channel of one sample, and its weights lie beside it. Where channels
// do, a row is one place, and has one weight. Both sum in float32 about a shift, as reduction.ts and columns.ts say, which is the
// mean of the first elements by their weights; sums are taken into float64 before they lose digits.

import { MOST_SUMMED } from "./columns";
import { wide } from "./pairs";
import { mergeTile } from "./reduce_columns";
import { ENOUGH, RUN } from "./reduce_rows";
import { leave, merge, Channel } from "./reduction";
import { address, MOST, narrow, readable, valueAt } from "./storage";
import { bytes, gated, loadRest, madd, storeRest, total, zeros } from "./vectors";

/** Rows of a tile of places. */
const TILE: u32 = 128;

/** A channel's record, and the weights of what is pending. */
@unmanaged
class Weighted extends Channel {
  weight: f64;
}

/** Bytes of it, and of nothing. */
const RECORD: usize = 80;

/**
 * Writes weights as float32 for each place, where `to` is not 0; they are float16 where `half`, and of whole samples where
 * `perSample`. Where `totals` is not 0, it gets how many are positive, and their sum, NaN where one is no weight.
 */
export function weigh(weights: usize, half: bool, perSample: bool, batch: u32, inner: u32, to: usize, totals: usize): void {
  let positives: f64 = 0, sum: f64 = 0;
  for (let n: u32 = 0, at: u32 = 0; n < batch; n++) {
    for (let i: u32 = 0; i < inner; i++, at++) {
      const weight = valueAt(weights, perSample ? n : at, half);
      if (to) store<f32>(to + bytes(at), <f32> weight);
      if (weight > 0) positives++;
      sum += weight >= 0 ? weight : NaN;
    }
  }
  if (!totals) return;
  store<f64>(totals, positives);
  store<f64>(totals, isFinite<f64>(sum) ? sum : NaN, 8);
}

/** d by its weights, and 0 where that is none: NaN too. */
// @ts-ignore: decorator
@inline
function counted(d: v128, weights: v128): v128 {
  return v128.and(d, f32x4.gt(weights, zeros()));
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
  let sum: f64 = 0;
  for (let i: u32 = 0; i < length; i++) sum += <f64> load<f32>(weights + bytes(i));
  return sum;
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
  let s0 = zeros(), s1 = s0, q0 = s0, q1 = s0;
  const vectors = x + bytes(length & ~3);
  for (const end = x + bytes(length & ~7); x < end; x += 32, weights += 32) {
    const w0 = v128.load(weights), w1 = v128.load(weights, 16);
    const d0 = counted(f32x4.sub(v128.load(x), shift), w0), g0 = f32x4.mul(d0, w0);
    const d1 = counted(f32x4.sub(v128.load(x, 16), shift), w1), g1 = f32x4.mul(d1, w1);
    s0 = f32x4.add(s0, g0);
    q0 = madd(g0, d0, q0);
    s1 = f32x4.add(s1, g1);
    q1 = madd(g1, d1, q1);
  }
  if (x < vectors) {
    const w = v128.load(weights), d = counted(f32x4.sub(v128.load(x), shift), w), g = f32x4.mul(d, w);
    s0 = f32x4.add(s0, g);
    q0 = madd(g, d, q0);
    x += 16;
    weights += 16;
  }
  const rest = length & 3;
  if (rest > 0) {
    const w = loadRest(weights, rest), d = counted(f32x4.sub(loadRest(x, rest), shift), w), g = f32x4.mul(d, w);
    s1 = f32x4.add(s1, g);
    q1 = madd(g, d, q1);
  }
  channel.sum = f32x4.add(channel.sum, f32x4.add(s0, s1));
  channel.products = f32x4.add(channel.products, f32x4.add(q0, q1));
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
      addStrip(from, stride, some, lanes, weights + bytes(done), shifts + bytes(first), sums + bytes(first), plane);
    }
  }
}

// @ts-ignore: decorator
@inline
function addStrip(
  x: usize, stride: usize, rows: u32, lanes: u32, weights: usize, shifts: usize, sums: usize, plane: usize,
): void {
  for (let j: u32 = 0; j < lanes; j += 4, x += 16, shifts += 16, sums += 16) {
    const shift = v128.load(shifts);
    const rest = lanes - j;
    let sum = zeros(), products = zeros();
    for (let r: u32 = 0, at = x; r < rows; r++, at += stride) {
      const w = v128.load32_splat(weights + bytes(r));
      const value = rest < 4 ? loadRest(at, rest) : v128.load(at);
      const d = counted(f32x4.sub(value, shift), w), g = f32x4.mul(d, w);
      sum = f32x4.add(sum, g);
      products = madd(g, d, products);
    }
    v128.store(sums, f32x4.add(v128.load(sums), sum));
    v128.store(sums + plane, f32x4.add(v128.load(sums + plane), products));
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
 * Computes samples, or places, [from, to) of dx, and with `passed` of the residual's gradient: scale * (dy + w * (offset +
 * (x - hi) * slope)), without what is behind dy where w is 0. Coefficients are planes of float32 as map.ts has them; `scratch` has
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
  for (let row: u32 = 0, c: u32 = 0; row < rows; row++) {
    for (let done: u32 = 0; done < width; done += most) {
      const length = min(width - done, most);
      const at = first + done;
      const g = readable(dy, at, length, half, scratch + room);
      const gate = output ? readable(output, at, length, half, scratch + 2 * room) : 0;
      const y = half ? scratch : address(dx, at, false);
      const through = half ? scratch + 3 * room : passed ? address(passed, at, false) : 0;
      const input = readable(x, at, length, half, scratch);
      const own = coefficients + bytes(last ? done : c);
      run(input, g, gate, y, passed ? through : 0, length, last ? by : by + bytes(done), own, plane, last);
      if (half) {
        narrow(y, address(dx, at, true), length);
        if (passed) narrow(through, address(passed, at, true), length);
      }
    }
    first += width;
    if (last) by += 4;
    else if (++c == channels) {
      c = 0;
      by += bytes(inner);
    }
  }
}

/** A run of one channel, whose elements have weights of their own, or where `last` of one weight and as many channels. */
// @ts-ignore: decorator
@inline
function run(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, weights: usize, at: usize, plane: usize, last: bool,
): void {
  if (last) runOf(x, g, gate, y, passed, length, weights, at, plane, true);
  else runOf(x, g, gate, y, passed, length, weights, at, plane, false);
}

// @ts-ignore: decorator
@inline
function runOf(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, weights: usize, his: usize, plane: usize, last: bool,
): void {
  let h = v128.load32_splat(his), s = v128.load32_splat(his + plane), o = v128.load32_splat(his + 2 * plane);
  let l = v128.load32_splat(his + 3 * plane), w = v128.load32_splat(weights);
  for (let j: usize = 0; j < bytes(length); j += 16) {
    const rest = length - <u32> (j >> 2);
    if (last) {
      h = v128.load(his + j);
      s = v128.load(his + plane + j);
      o = v128.load(his + 2 * plane + j);
      l = v128.load(his + 3 * plane + j);
    } else w = rest < 4 ? loadRest(weights + j, rest) : v128.load(weights + j);
    let term = rest < 4 ? loadRest(g + j, rest) : v128.load(g + j);
    if (gate) term = gated(term, rest < 4 ? loadRest(gate + j, rest) : v128.load(gate + j));
    const value = rest < 4 ? loadRest(x + j, rest) : v128.load(x + j);
    const behind = counted(f32x4.mul(w, madd(f32x4.sub(value, h), l, o)), w);
    const result = f32x4.mul(f32x4.add(term, behind), s);
    if (rest < 4) {
      storeRest(y + j, result, rest);
      if (passed) storeRest(passed + j, term, rest);
    } else {
      v128.store(y + j, result);
      if (passed) v128.store(passed + j, term);
    }
  }
}

// Moments by the weights of examples: float32, one for each sample and place, the same for all channels; what has none is left
// out, whatever it is.
//
// Where a channel's elements lie side by side, a row is one channel of one sample, and its weights lie beside it. Where channels
// do, a row is one place, and has one weight. Both sum in float32 about a shift, as reduction.ts and columns.ts say, which is the
// mean of the first elements by their weights; sums are taken into float64 before they lose digits.

import { MOST_SUMMED, STRIP } from "./columns";
import { mergeTile } from "./lanes";
import { wide } from "./pairs";
import { counted, sumOf } from "./places";
import { ENOUGH, RUN } from "./reduce_rows";
import { Channel, leave, merge } from "./reduction";
import { MOST, readable, valueAt } from "./storage";
import { bytes, increase, loadRest, madd, total, zeros } from "./vectors";

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

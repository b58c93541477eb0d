// Moments where the channels lie side by side (channels last, or rows of few elements per channel): memory is a matrix whose
// rows hold `period` lanes, each of which always belongs to the same channel.
//
// Memory is walked once, in ascending order, a few rows at a time; a large tensor in its two halves at once, as in
// moments_rows.ts. Every lane sums x - shift and its square in float32; after
// a tile of rows they are merged into float64 by Chan's formula, and the running mean becomes the new shift. At the end
// the lanes of a channel are merged.

import { ChannelMoments, merge, RECORD } from "./moments";
import { LARGE } from "./moments_rows";
import { address, MOST, readable, valueAt } from "./storage";
import { bytes, madd, zeros } from "./vectors";

/**
 * Rows that are summed at once: eight save loads and stores of the sums, but are more streams than the prefetcher follows,
 * so two where memory, not the cache, delivers them.
 */
const ROWS: u32 = 2;
const ROWS_IN_CACHE: u32 = 8;
const CACHED: u32 = 1 << 18;
/** Lanes of some rows that are widened at once. */
const WIDENED: u32 = MOST / ROWS_IN_CACHE;
/** Rows of a tile at most, and of the first one, whose shift is the mean of a few rows. */
const TILE: u32 = 256;
const FIRST_TILE: u32 = 16;

/**
 * Moments of elements [from, to) of a matrix of rows of `period` lanes, per channel.
 *
 * @param x first byte of the tensor
 * @param half 1 for float16, 0 for float32
 * @param period lanes of a row, a multiple of 4; lane j belongs to channel (j / inner) % channels; `from` is a multiple of it
 * @param records the result: a record per channel
 * @param scratch room for period x 28 bytes, and MOST float32
 */
export function momentsOfColumns(
  x: usize,
  half: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  records: usize,
  scratch: usize,
): void {
  memory.fill(records, 0, <usize> channels * RECORD);
  const plane = bytes(period);
  const mean = scratch;
  const m2 = mean + 2 * plane;
  const shift = m2 + 2 * plane;
  const sum = shift + plane;
  const squares = sum + plane;
  const widened = squares + plane;
  const rows = (to - from) / period;
  memory.fill(mean, 0, 7 * plane);
  const step = to - from <= CACHED ? ROWS_IN_CACHE : ROWS;
  const large = !half && to - from >= LARGE;
  const pairs = large ? rows / 2 : 0;
  // A row of the other half, or the next one.
  const stride = half ? bytes(WIDENED) : large ? bytes(pairs * period) : plane;
  const wholeRows = from + rows * period;
  let settled: u32 = 0;
  while (settled < rows) {
    const tile = min(rows - settled, min(max(4 * settled, FIRST_TILE), TILE));
    for (let done: u32 = 0; done < tile; done += step) {
      const group = min(step, tile - done);
      if (large && group == 1) from = wholeRows - period; // The halves are done; one row is left.
      for (let lane: u32 = 0; lane < period;) {
        const lanes = half ? min(WIDENED, period - lane) : period;
        let block = address(x, from + lane, false);
        if (half) {
          for (let r: u32 = 0; r < group; r++) {
            readable(x, from + r * period + lane, lanes, true, widened + <usize> r * stride);
          }
          block = widened;
        }
        const at = bytes(lane);
        if (settled + done == 0) meanOf(block, stride, group, shift + at, lanes);
        add(block, stride, group, shift + at, sum + at, squares + at, lanes);
        lane += lanes;
      }
      from += large ? period : group * period;
    }
    settle(period, <f64> settled, <f64> tile, shift, sum, squares, mean, m2);
    settled += tile;
  }
  addPartialRow(x, half, wholeRows, to - wholeRows, <f64> rows, mean, m2);
  collect(period, <f64> rows, to - wholeRows, mean, m2, channels, inner, records);
}

/** Adds a group of rows to the sums of their lanes. */
// @ts-ignore: decorator
@inline
function add(x: usize, stride: usize, rows: u32, shifts: usize, sums: usize, squares: usize, lanes: u32): void {
  const end = bytes(lanes);
  if (rows == ROWS_IN_CACHE) {
    const x1 = x + stride, x2 = x1 + stride, x3 = x2 + stride, x4 = x3 + stride, x5 = x4 + stride;
    const x6 = x5 + stride, x7 = x6 + stride;
    for (let j: usize = 0; j < end; j += 16) {
      const shift = v128.load(shifts + j);
      const d0 = f32x4.sub(v128.load(x + j), shift);
      const d1 = f32x4.sub(v128.load(x1 + j), shift);
      const d2 = f32x4.sub(v128.load(x2 + j), shift);
      const d3 = f32x4.sub(v128.load(x3 + j), shift);
      let sum = f32x4.add(f32x4.add(d0, d1), f32x4.add(d2, d3));
      let even = madd(d0, d0, f32x4.mul(d1, d1));
      let odd = madd(d2, d2, f32x4.mul(d3, d3));
      const d4 = f32x4.sub(v128.load(x4 + j), shift);
      const d5 = f32x4.sub(v128.load(x5 + j), shift);
      const d6 = f32x4.sub(v128.load(x6 + j), shift);
      const d7 = f32x4.sub(v128.load(x7 + j), shift);
      sum = f32x4.add(sum, f32x4.add(f32x4.add(d4, d5), f32x4.add(d6, d7)));
      even = madd(d4, d4, even);
      odd = madd(d5, d5, odd);
      even = madd(d6, d6, even);
      odd = madd(d7, d7, odd);
      v128.store(sums + j, f32x4.add(v128.load(sums + j), sum));
      v128.store(squares + j, f32x4.add(v128.load(squares + j), f32x4.add(even, odd)));
    }
    return;
  }
  if (rows == ROWS) {
    const x1 = x + stride;
    for (let j: usize = 0; j < end; j += 16) {
      const shift = v128.load(shifts + j);
      const d0 = f32x4.sub(v128.load(x + j), shift);
      const d1 = f32x4.sub(v128.load(x1 + j), shift);
      v128.store(sums + j, f32x4.add(v128.load(sums + j), f32x4.add(d0, d1)));
      v128.store(squares + j, madd(d1, d1, madd(d0, d0, v128.load(squares + j))));
    }
    return;
  }
  for (let r: u32 = 0; r < rows; r++, x += stride) {
    for (let j: usize = 0; j < end; j += 16) {
      const d = f32x4.sub(v128.load(x + j), v128.load(shifts + j));
      v128.store(sums + j, f32x4.add(v128.load(sums + j), d));
      v128.store(squares + j, madd(d, d, v128.load(squares + j)));
    }
  }
}

/** Mean of a group of rows per lane, about the first row: exactly that row where all are equal. */
function meanOf(x: usize, stride: usize, rows: u32, shifts: usize, lanes: u32): void {
  const share = f32x4.splat(1.0 / <f32> rows);
  for (let j: usize = 0; j < bytes(lanes); j += 16) {
    const first = v128.load(x + j);
    let sum = zeros();
    for (let r: u32 = 1; r < rows; r++) sum = f32x4.add(sum, f32x4.sub(v128.load(x + <usize> r * stride + j), first));
    v128.store(shifts + j, madd(sum, share, first));
  }
}

/** Merges the sums of `n` rows into the moments of the rows before, lane by lane. */
function settle(
  period: u32,
  before: f64,
  n: f64,
  shifts: usize,
  sums: usize,
  squares: usize,
  means: usize,
  m2s: usize,
): void {
  const inverse = f64x2.splat(1 / n);
  const share = f64x2.splat(n / (before + n));
  const weight = f64x2.splat(before * (n / (before + n)));
  for (let j: usize = 0; j < bytes(period); j += 8) {
    const sum = f64x2.promote_low_f32x4(v128.load64_zero(sums + j));
    const offset = f64x2.mul(sum, inverse);
    const square = f64x2.promote_low_f32x4(v128.load64_zero(squares + j));
    // Rounding may leave a constant lane a little below 0; max() keeps NaN.
    const m2 = f64x2.max(f64x2.sub(square, f64x2.mul(sum, offset)), f64x2.splat(0));
    const mean = f64x2.add(f64x2.promote_low_f32x4(v128.load64_zero(shifts + j)), offset);
    const old = v128.load(means + 2 * j);
    const delta = f64x2.sub(mean, old);
    const merged = before == 0 ? mean : f64x2.add(old, f64x2.mul(delta, share));
    const between = f64x2.mul(f64x2.mul(delta, delta), weight);
    const spread = before == 0 ? m2 : f64x2.add(v128.load(m2s + 2 * j), f64x2.add(m2, between));
    v128.store(means + 2 * j, merged);
    v128.store(m2s + 2 * j, spread);
    v128.store64_lane(shifts + j, f32x4.demote_f64x2_zero(merged), 0);
  }
  memory.fill(sums, 0, 2 * bytes(period)); // The squares lie behind the sums.
}

/** Merges the elements of a last row that is not whole, one value per lane. */
function addPartialRow(x: usize, half: bool, from: u32, lanes: u32, rows: f64, means: usize, m2s: usize): void {
  const share = 1 / (rows + 1);
  for (let j: u32 = 0; j < lanes; j++) {
    const value = valueAt(x, from + j, half);
    const lane = <usize> j << 3;
    const mean = load<f64>(means + lane);
    const delta = value - mean;
    store<f64>(means + lane, rows == 0 ? value : mean + delta * share);
    if (rows > 0) store<f64>(m2s + lane, load<f64>(m2s + lane) + delta * delta * (rows * share));
  }
}

/** Merges the lanes of every channel into its record. The first lanes have one row more. */
function collect(
  period: u32,
  rows: f64,
  more: u32,
  means: usize,
  m2s: usize,
  channels: u32,
  inner: u32,
  records: usize,
): void {
  let lane: u32 = 0;
  while (lane < period) {
    for (let c: u32 = 0; c < channels; c++) {
      const channel = changetype<ChannelMoments>(records + <usize> c * RECORD);
      for (let i: u32 = 0; i < inner; i++, lane++) {
        const at = <usize> lane << 3;
        merge(channel, lane < more ? rows + 1 : rows, load<f64>(means + at), load<f64>(m2s + at));
      }
    }
  }
}

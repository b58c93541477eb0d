// Moments where the channels lie side by side (channels last, or rows of few elements per channel): memory is a matrix whose
// rows hold `period` lanes, each of which always belongs to the same channel.
//
// Memory is walked once, in strips as columns.ts says, or else two rows at once that lie half the matrix apart. Every lane
// sums x - shift and its square in float32; after a tile of rows they are merged into float64 by Chan's formula, and the
// running mean becomes the new shift. At the end the lanes of a channel are merged.

import { MOST_SUMMED, rowsOfBlock, SHORT_STRIP, STRIP } from "./columns";
import { wide } from "./pairs";
import { ChannelMoments, leave, merge, RECORD } from "./moments";
import { LARGE } from "./moments_rows";
import { address, MOST, readable, valueAt } from "./storage";
import { bytes, increase, madd, zeros } from "./vectors";

/** Rows of float16 that are widened at once, and how many of their lanes. */
const HALF_ROWS: u32 = 8;
const WIDENED: u32 = MOST / HALF_ROWS;
/** Rows of a tile at most, and of the first one, whose shift is the mean of a few rows. */
const TILE: u32 = 256;
const FIRST_TILE: u32 = 16;
/** Rows of that mean at most. */
const MEAN_ROWS: u32 = 8;

/**
 * Moments of elements [from, to) of a matrix of rows of `period` lanes, per channel.
 *
 * @param x first byte of the tensor
 * @param half 1 for float16, 0 for float32
 * @param inStrips whether rows of float32 are walked in strips, as columns.ts says; rows of float16 are
 * @param period lanes of a row, a multiple of 4; lane j belongs to channel (j / inner) % channels; `from` is a multiple of it
 * @param result planes of float64 per channel: mean, m2
 * @param counts likewise: how many values they are of
 * @param scratch room for period x 28 bytes, and MOST float32
 */
export function momentsOfColumns(
  x: usize,
  half: bool,
  inStrips: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  result: usize,
  counts: usize,
  scratch: usize,
): void {
  const plane = bytes(period);
  const isChannel = period == channels; // Every lane: its moments are the result.
  const mean = isChannel ? result : scratch;
  const m2 = mean + 2 * plane;
  const shift = scratch + 4 * plane;
  const sum = shift + plane;
  const squares = sum + plane;
  const widened = squares + plane;
  const rows = (to - from) / period;
  memory.fill(mean, 0, 4 * plane);
  memory.fill(sum, 0, 2 * plane);
  const inBlocks = half || inStrips;
  const step: u32 = half ? HALF_ROWS : inStrips ? min(rowsOfBlock(period), MOST_SUMMED) : 2;
  const distance = inBlocks ? 1 : rows / 2;
  // Rows of one strip are one stream; from memory, two at once are faster.
  const inHalves = !half && inStrips && period <= STRIP && rows * period >= LARGE;
  const halves = inHalves ? rows / (2 * step) * step : 0;
  let settled: u32 = 0;
  while (settled < rows) {
    const tile = min(rows - settled, min(max(4 * settled, FIRST_TILE), TILE));
    for (let done = settled; done < settled + tile; done += step) {
      const group = min(step, settled + tile - done);
      const pair = !inBlocks && group == 2;
      const first = from + (pair ? done / 2 : rowOfBlock(done, step, halves)) * period;
      if (half) addHalves(x, first, period, group, done == 0, shift, sum, squares, widened);
      else addFloats(x + bytes(first), bytes(distance * period), group, pair, done == 0, shift, sum, squares, period);
    }
    settle(period, <f64> settled, <f64> tile, shift, sum, squares, mean, m2);
    settled += tile;
  }
  const whole = rows * period;
  addPartialRow(x, half, from + whole, to - from - whole, <f64> rows, mean, m2);
  const more = to - from - whole; // So many lanes have one row more.
  if (isChannel) {
    for (let c: u32 = 0; c < channels; c++) store<f64>(wide(counts, c), <f64> (c < more ? rows + 1 : rows));
    return;
  }
  collect(period, <f64> rows, more, mean, m2, channels, inner, shift, result, counts);
}

/** The first row of a block where blocks are taken from two halves of so many rows in turns; what they leave comes last. */
// @ts-ignore: decorator
@inline
function rowOfBlock(done: u32, step: u32, half: u32): u32 {
  if (done >= 2 * half) return done;
  const block = done / step;
  return (block & 1) * half + (block >> 1) * step;
}

/** Adds a block of rows, a few lanes of it widened at a time. */
function addHalves(
  x: usize,
  first: u32,
  period: u32,
  rows: u32,
  isFirst: bool,
  shifts: usize,
  sums: usize,
  squares: usize,
  widened: usize,
): void {
  const stride = bytes(WIDENED);
  for (let lane: u32 = 0; lane < period; lane += WIDENED) {
    const lanes = min(WIDENED, period - lane);
    const at = bytes(lane);
    for (let r: u32 = 0; r < rows; r++) {
      readable(x, first + r * period + lane, lanes, true, widened + <usize> r * stride);
    }
    addFloats(widened, stride, rows, false, isFirst, shifts + at, sums + at, squares + at, lanes);
  }
}

/** Adds a block of rows to the sums of their lanes; of the first block the mean is the shift of all. */
function addFloats(
  x: usize,
  stride: usize,
  rows: u32,
  pair: bool,
  isFirst: bool,
  shifts: usize,
  sums: usize,
  squares: usize,
  lanes: u32,
): void {
  if (isFirst) meanOf(x, stride, rows, shifts, lanes);
  if (pair) addPair(x, stride, shifts, sums, squares, lanes);
  else addStrips(x, stride, rows, shifts, sums, squares, lanes);
}

// @ts-ignore: decorator
@inline
function addPair(x: usize, below: usize, shifts: usize, sums: usize, squares: usize, lanes: u32): void {
  const x1 = x + below;
  for (let j: usize = 0; j < bytes(lanes); j += 16) {
    const shift = v128.load(shifts + j);
    const d0 = f32x4.sub(v128.load(x + j), shift);
    const d1 = f32x4.sub(v128.load(x1 + j), shift);
    v128.store(sums + j, f32x4.add(v128.load(sums + j), f32x4.add(d0, d1)));
    v128.store(squares + j, f32x4.add(v128.load(squares + j), madd(d1, d1, f32x4.mul(d0, d0))));
  }
}

/** Strip by strip: the block has sums of its own, in registers, so that digits are lost once a block, not once a row. */
// @ts-ignore: decorator
@inline
function addStrips(
  x: usize,
  stride: usize,
  rows: u32,
  shifts: usize,
  sums: usize,
  squares: usize,
  lanes: u32,
): void {
  const height = <usize> rows * stride;
  let j: usize = 0;
  for (const whole = bytes(lanes & ~(STRIP - 1)); j < whole; j += bytes(STRIP)) {
    addStrip(x + j, stride, height, shifts + j, sums + j, squares + j, true);
  }
  if (j + bytes(SHORT_STRIP) == bytes(lanes)) {
    addStrip(x + j, stride, height, shifts + j, sums + j, squares + j, false);
    return;
  }
  for (; j < bytes(lanes); j += 16) {
    const shift = v128.load(shifts + j);
    let sum = zeros(), square = zeros();
    for (let k = j; k < j + height; k += stride) {
      const d = f32x4.sub(v128.load(x + k), shift);
      sum = f32x4.add(sum, d);
      square = madd(d, d, square);
    }
    v128.store(sums + j, f32x4.add(v128.load(sums + j), sum));
    v128.store(squares + j, f32x4.add(v128.load(squares + j), square));
  }
}

/** A strip of four vectors, or of three. */
// @ts-ignore: decorator
@inline
function addStrip(
  row: usize,
  stride: usize,
  height: usize,
  shifts: usize,
  sums: usize,
  squares: usize,
  four: bool,
): void {
  const k0 = v128.load(shifts), k1 = v128.load(shifts, 16), k2 = v128.load(shifts, 32);
  const k3 = four ? v128.load(shifts, 48) : k2;
  let s0 = zeros(), s1 = zeros(), s2 = zeros(), s3 = zeros();
  let q0 = zeros(), q1 = zeros(), q2 = zeros(), q3 = zeros();
  for (const end = row + height; row < end; row += stride) {
    const d0 = f32x4.sub(v128.load(row), k0);
    s0 = f32x4.add(s0, d0);
    q0 = madd(d0, d0, q0);
    const d1 = f32x4.sub(v128.load(row, 16), k1);
    s1 = f32x4.add(s1, d1);
    q1 = madd(d1, d1, q1);
    const d2 = f32x4.sub(v128.load(row, 32), k2);
    s2 = f32x4.add(s2, d2);
    q2 = madd(d2, d2, q2);
    if (four) {
      const d3 = f32x4.sub(v128.load(row, 48), k3);
      s3 = f32x4.add(s3, d3);
      q3 = madd(d3, d3, q3);
    }
  }
  increase(sums, s0, s1, s2, s3, four);
  increase(squares, q0, q1, q2, q3, four);
}

/** Mean of the first few rows per lane, about the first row: exactly that row where all are equal. */
function meanOf(x: usize, stride: usize, rows: u32, shifts: usize, lanes: u32): void {
  rows = min(rows, MEAN_ROWS);
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

/** Merges the lanes of every channel, in a record for all of them in turn. The first lanes have one row more. */
function collect(
  period: u32,
  rows: f64,
  more: u32,
  means: usize,
  m2s: usize,
  channels: u32,
  inner: u32,
  record: usize,
  result: usize,
  counts: usize,
): void {
  const channel = changetype<ChannelMoments>(record);
  for (let c: u32 = 0; c < channels; c++) {
    memory.fill(record, 0, RECORD);
    for (let first = c * inner; first < period; first += channels * inner) {
      for (let lane = first; lane < first + inner; lane++) {
        merge(channel, lane < more ? rows + 1 : rows, load<f64>(wide(means, lane)), load<f64>(wide(m2s, lane)));
      }
    }
    leave(channel, channels, c, result, counts);
  }
}

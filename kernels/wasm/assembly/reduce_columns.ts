// Moments and gradient sums where the channels lie side by side (channels last, or rows of few elements per channel): memory is a
// matrix whose rows hold `period` lanes, each of which always belongs to the same channel.
//
// Memory is walked once, as columns.ts says, moments by pairs of rows that always lie half the matrix apart. Every lane sums in
// float32; after a tile of rows sums are taken into float64, and the running mean of moments becomes the new shift. At the end
// the lanes of a channel become one.

import { distanceOfPairs, MOST_SUMMED, rowOfPair, rowsOfBlock, SHORT_STRIP, STRIP } from "./columns";
import { addLanes, addPartialRow, addTile, mergeLanes, mergePartialRow, mergeTile } from "./lanes";
import { wide } from "./pairs";
import { multiply, weightsAt } from "./places";
import { LARGE, reduceRows } from "./reduce_rows";
import { BOUNDED, GATED, MOMENTS, SUMS, term } from "./reduction";
import { address, further, MOST, readable } from "./storage";
import { bytes, hasBounds, increase, madd, zeros } from "./vectors";

/** Rows of float16 that are widened at once, and how many of their lanes. */
const HALF_ROWS: u32 = 8;
const WIDENED: u32 = MOST / HALF_ROWS;
/** Rows of a tile at most, a multiple of those of any block; and of the first one of moments, whose shift is the mean of a few rows. */
const TILE: u32 = 256;
const FIRST_TILE: u32 = 16;
/** Rows of that mean at most. */
const MEAN_ROWS: u32 = 8;

/**
 * Reduces elements [from, to) as rows, as reduceRows says, where `period` is 0; or else of matrices of rows of `period` lanes, a
 * multiple of 4: lane j belongs to channel (j / inner) % channels, and `from` is a multiple of the period. `inStrips` says whether
 * rows of float32 are walked in strips; rows of float16 are, and those with weights. `his` are means per lane then; `scratch` has
 * room for period x 28 bytes, 3 x MOST float32, and a run of weights.
 */
export function reduce(
  x: usize, dy: usize, output: usize, half: bool, inStrips: bool, channels: u32, inner: u32, period: u32, from: u32,
  to: u32, his: usize, result: usize, counts: usize, scratch: usize, weights: usize,
): void {
  if (period == 0) {
    return reduceRows(x, dy, output, half, channels, inner, from, to, his, result, counts, scratch, weights);
  }
  const plane = bytes(period);
  const isChannel = period == channels; // Every lane: what it has is the result.
  const firsts = isChannel ? result : scratch;
  const sums = scratch + 4 * plane;
  const shifts = dy ? his : sums + 2 * plane;
  const widened = sums + 3 * plane;
  memory.fill(firsts, 0, 4 * plane);
  memory.fill(sums, 0, 2 * plane);
  const rows = (to - from) / period;
  const isCopied = half || weights != 0;
  const inBlocks = isCopied || inStrips;
  const step: u32 = isCopied ? HALF_ROWS : inStrips ? min(rowsOfBlock(period), MOST_SUMMED) : 2;
  const distance = dy ? distanceOfPairs(rows, period) : rows / 2;
  // Rows of one strip are one stream; from memory, two at once are faster.
  const inHalves = !dy && !half && inStrips && period <= STRIP && rows * period >= LARGE;
  const halves = inHalves ? rows / (2 * step) * step : 0;
  let settled: u32 = 0;
  while (settled < rows) {
    const tile = min(rows - settled, dy ? TILE : min(max(4 * settled, FIRST_TILE), TILE));
    for (let done = settled; done < settled + tile; done += step) {
      const group = min(step, settled + tile - done);
      const pair = !inBlocks && group == 2;
      const first = from + (pair ? rowOfPair(done / 2, distance) : rowOfBlock(done, step, halves)) * period;
      const isFirst = !dy && done == 0;
      if (isCopied) {
        addCopied(x, dy, output, half, first, period, group, isFirst, shifts, sums, widened, weights, channels, inner);
      } else {
        const at = bytes(first);
        const below = pair ? bytes(distance * period) : 0;
        const stride = pair ? below : plane;
        addFloats(x + at, further(dy, at), further(output, at), stride, group, below, isFirst, shifts, sums, plane, period);
      }
    }
    if (dy) addTile(period, sums, firsts);
    else mergeTile(period, <f64> settled, <f64> tile, shifts, sums, firsts);
    settled += tile;
  }
  const whole = from + rows * period;
  const more = to - whole; // So many lanes have one row more.
  if (dy) addPartialRow(x, dy, output, half, whole, more, his, firsts, period, weights, channels, inner);
  else mergePartialRow(x, half, whole, more, <f64> rows, firsts, period);
  if (!isChannel) {
    if (dy) addLanes(period, firsts, channels, inner, result);
    else mergeLanes(period, <f64> rows, more, firsts, channels, inner, shifts, result, counts);
  } else if (!dy) {
    for (let c: u32 = 0; c < channels; c++) store<f64>(wide(counts, c), <f64> (c < more ? rows + 1 : rows));
  }
}

/** The first row of a block where blocks are taken from two halves of so many rows in turns; what they leave comes last. */
// @ts-ignore: decorator
@inline
function rowOfBlock(done: u32, step: u32, half: u32): u32 {
  if (done >= 2 * half) return done;
  const block = done / step;
  return (block & 1) * half + (block >> 1) * step;
}

/**
 * Adds a block of rows, a few lanes of it widened at a time; where there are weights, dy times those of its places. What is float32 in
 * rows that fit is read where it lies.
 */
function addCopied(
  x: usize, dy: usize, output: usize, half: bool, first: u32, period: u32, rows: u32, isFirst: bool, shifts: usize,
  sums: usize, widened: usize, weights: usize, channels: u32, inner: u32,
): void {
  const inPlace = !half && period <= WIDENED;
  const stride = bytes(inPlace ? period : WIDENED);
  const gradients = dy ? widened + bytes(MOST) : 0;
  const gates = output ? gradients + bytes(MOST) : 0;
  for (let lane: u32 = 0; lane < period; lane += WIDENED) {
    const lanes = min(WIDENED, period - lane);
    const at = bytes(lane);
    for (let r: u32 = 0; r < rows; r++) {
      const element = first + r * period + lane;
      const row = <usize> r * stride;
      if (!inPlace) {
        copied(x, element, lanes, half, widened + row);
        if (output) copied(output, element, lanes, half, gates + row);
      }
      if (weights) {
        const by = weightsAt(weights, element, lanes, channels, inner, widened + 3 * bytes(MOST));
        multiply(readable(dy, element, lanes, half, gradients + row), by, lanes, gradients + row);
      } else if (dy) readable(dy, element, lanes, half, gradients + row);
    }
    const from = bytes(first);
    const input = inPlace ? x + from : widened;
    const gate = inPlace ? further(output, from) : gates;
    addFloats(input, gradients, gate, stride, rows, 0, isFirst, shifts + at, sums + at, bytes(period), lanes);
  }
}

// @ts-ignore: decorator
@inline
function copied(tensor: usize, element: u32, length: u32, half: bool, to: usize): void {
  if (half) readable(tensor, element, length, true, to);
  else memory.copy(to, address(tensor, element, false), bytes(length));
}

/**
 * Adds a block of rows to the sums of their lanes, or two rows, `below` bytes apart; of the first block of moments the mean is the
 * shift of all. Sums of products lie a plane behind the others.
 */
function addFloats(
  x: usize, g: usize, gate: usize, stride: usize, rows: u32, below: usize, isFirst: bool, shifts: usize, sums: usize,
  plane: usize, lanes: u32,
): void {
  if (isFirst) meanOf(x, stride, rows, shifts, lanes);
  const products = sums + plane;
  if (below) {
    if (gate && hasBounds()) addPair(x, g, gate, below, shifts, sums, products, lanes, BOUNDED);
    else if (gate) addPair(x, g, gate, below, shifts, sums, products, lanes, GATED);
    else if (g) addPair(x, g, 0, below, shifts, sums, products, lanes, SUMS);
    else addPair(x, 0, 0, below, shifts, sums, products, lanes, MOMENTS);
  } else if (gate && hasBounds()) addStrips(x, g, gate, stride, rows, shifts, sums, products, lanes, BOUNDED);
  else if (gate) addStrips(x, g, gate, stride, rows, shifts, sums, products, lanes, GATED);
  else if (g) addStrips(x, g, 0, stride, rows, shifts, sums, products, lanes, SUMS);
  else addStrips(x, 0, 0, stride, rows, shifts, sums, products, lanes, MOMENTS);
}

// @ts-ignore: decorator
@inline
function addPair(
  x: usize, g: usize, gate: usize, below: usize, shifts: usize, sums: usize, products: usize, lanes: u32, kind: u32,
): void {
  const x1 = x + below, y1 = g + below, z1 = gate + below;
  for (let j: usize = 0; j < bytes(lanes); j += 16) {
    const shift = v128.load(shifts + j);
    const d0 = f32x4.sub(v128.load(x + j), shift);
    const d1 = f32x4.sub(v128.load(x1 + j), shift);
    const g0 = term(d0, g + j, gate + j, kind);
    const g1 = term(d1, y1 + j, z1 + j, kind);
    v128.store(sums + j, f32x4.add(v128.load(sums + j), f32x4.add(g0, g1)));
    v128.store(products + j, f32x4.add(v128.load(products + j), madd(g1, d1, f32x4.mul(g0, d0))));
  }
}

/** Strip by strip: the block has sums of its own, in registers, so that digits are lost once a block, not once a row. */
// @ts-ignore: decorator
@inline
function addStrips(
  x: usize, g: usize, gate: usize, stride: usize, rows: u32, shifts: usize, sums: usize, products: usize, lanes: u32,
  kind: u32,
): void {
  const height = <usize> rows * stride;
  let j: usize = 0;
  for (const whole = bytes(lanes & ~(STRIP - 1)); j < whole; j += bytes(STRIP)) {
    addStrip(x, g, gate, j, stride, height, shifts, sums, products, kind, true);
  }
  if (j + bytes(SHORT_STRIP) == bytes(lanes)) {
    addStrip(x, g, gate, j, stride, height, shifts, sums, products, kind, false);
    return;
  }
  for (; j < bytes(lanes); j += 16) {
    const shift = v128.load(shifts + j);
    let sum = zeros(), product = zeros();
    for (let k = j; k < j + height; k += stride) {
      const d = f32x4.sub(v128.load(x + k), shift);
      const gradient = term(d, g + k, gate + k, kind);
      sum = f32x4.add(sum, gradient);
      product = madd(gradient, d, product);
    }
    v128.store(sums + j, f32x4.add(v128.load(sums + j), sum));
    v128.store(products + j, f32x4.add(v128.load(products + j), product));
  }
}

/**
 * The strip at byte j of a row, of four vectors or of three. It is given j, not addresses of sums: those would take up registers
 * during the loop ([256, 128]: 5.6 instead of 4.3 us).
 */
// @ts-ignore: decorator
@inline
function addStrip(
  x: usize, g: usize, gate: usize, j: usize, stride: usize, height: usize, shifts: usize, sums: usize,
  products: usize, kind: u32, four: bool,
): void {
  const h0 = v128.load(shifts + j), h1 = v128.load(shifts + j, 16), h2 = v128.load(shifts + j, 32);
  const h3 = four ? v128.load(shifts + j, 48) : h2;
  let s0 = zeros(), s1 = zeros(), s2 = zeros(), s3 = zeros();
  let p0 = zeros(), p1 = zeros(), p2 = zeros(), p3 = zeros();
  let input = x + j, gradient = g + j, output = gate + j;
  for (const end = input + height; input < end; input += stride, gradient += stride, output += stride) {
    const d0 = f32x4.sub(v128.load(input), h0), g0 = term(d0, gradient, output, kind);
    s0 = f32x4.add(s0, g0);
    p0 = madd(g0, d0, p0);
    const d1 = f32x4.sub(v128.load(input, 16), h1), g1 = term(d1, gradient + 16, output + 16, kind);
    s1 = f32x4.add(s1, g1);
    p1 = madd(g1, d1, p1);
    const d2 = f32x4.sub(v128.load(input, 32), h2), g2 = term(d2, gradient + 32, output + 32, kind);
    s2 = f32x4.add(s2, g2);
    p2 = madd(g2, d2, p2);
    if (four) {
      const d3 = f32x4.sub(v128.load(input, 48), h3), g3 = term(d3, gradient + 48, output + 48, kind);
      s3 = f32x4.add(s3, g3);
      p3 = madd(g3, d3, p3);
    }
  }
  increase(sums + j, s0, s1, s2, s3, four);
  increase(products + j, p0, p1, p2, p3, four);
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

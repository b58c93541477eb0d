// y where the channels lie side by side: memory is a matrix whose rows hold `period` lanes, each with coefficients of its own,
// walked as columns.ts says.

import { distanceOfPairs, rowOfPair, rowsOfBlock, SHORT_STRIP, STRIP } from "./columns";
import { one } from "./normalize";
import { normalizeRows } from "./normalize_rows";
import { address, further, MOST, narrow, readable } from "./storage";
import { bytes, loadRest, storeRest } from "./vectors";

/**
 * Normalizes elements [from, to) as normalizeRows says where `period` is 0; or else of a tensor whose rows hold `period` lanes,
 * each with coefficients of its own. `from` is a multiple of the period, and `inStrips` says whether rows are walked in strips.
 */
export function normalize(
  x: usize,
  residual: usize,
  y: usize,
  half: bool,
  inStrips: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  relu: bool,
  scratch: usize,
): void {
  if (period == 0) return normalizeRows(x, residual, y, half, channels, inner, from, to, coefficients, relu, scratch);
  if (half) return halvesOfColumns(x, residual, y, period, from, to, coefficients, relu, scratch);
  const first = bytes(from);
  floatsOfColumns(x + first, further(residual, first), y + first, inStrips, period, to - from, coefficients, relu);
}

function floatsOfColumns(
  x: usize,
  residual: usize,
  y: usize,
  inStrips: bool,
  period: u32,
  elements: u32,
  at: usize,
  relu: bool,
): void {
  const plane = bytes(period);
  const rows = elements / period;
  let done: u32 = 0;
  if (inStrips) {
    const block = rowsOfBlock(period);
    for (; done < rows; done += block) {
      const to = bytes(done * period);
      anyStrips(x + to, further(residual, to), y + to, min(block, rows - done), at, plane, relu);
    }
    done = rows;
  } else {
    const distance = distanceOfPairs(rows, period);
    const below = bytes(distance * period);
    for (; done + 1 < rows; done += 2) {
      const to = bytes(rowOfPair(done / 2, distance) * period);
      anyAcross(x + to, further(residual, to), y + to, period, below, at, plane, relu);
    }
  }
  // A row without a partner, and the elements of a last one that is not whole.
  for (let rest = elements - done * period; rest > 0; done++) {
    const to = bytes(done * period);
    const length = min(rest, period);
    anyAcross(x + to, further(residual, to), y + to, length, 0, at, plane, relu);
    rest -= length;
  }
}

function halvesOfColumns(
  x: usize,
  residual: usize,
  y: usize,
  period: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  relu: bool,
  scratch: usize,
): void {
  let lane: u32 = 0;
  while (from < to) {
    const length = min(min(period - lane, to - from), MOST);
    const input = readable(x, from, length, true, scratch);
    const added = residual ? readable(residual, from, length, true, scratch + bytes(MOST)) : 0;
    anyAcross(input, added, scratch, length, 0, coefficients + bytes(lane), bytes(period), relu);
    narrow(scratch, address(y, from, true), length);
    from += length;
    lane += length;
    if (lane == period) lane = 0;
  }
}

/** Elements of a row, each with coefficients of its own; of two rows at once, if `below` is not 0. */
// @ts-ignore: decorator
@inline
function across(
  x: usize,
  r: usize,
  y: usize,
  length: u32,
  below: usize,
  his: usize,
  plane: usize,
  add: bool,
  relu: bool,
): void {
  const scales = his + plane;
  const offsets = scales + plane;
  const end = bytes(length & ~3);
  if (below) {
    for (let j: usize = 0; j < end; j += 16) {
      const hi = v128.load(his + j);
      const scale = v128.load(scales + j);
      const offset = v128.load(offsets + j);
      const k = j + below;
      const upper = one(v128.load(x + j), add ? v128.load(r + j) : hi, hi, scale, offset, add, relu);
      const lower = one(v128.load(x + k), add ? v128.load(r + k) : hi, hi, scale, offset, add, relu);
      v128.store(y + j, upper);
      v128.store(y + k, lower);
    }
    return; // A row that has another below it is whole: it has no rest.
  }
  for (let j: usize = 0; j < end; j += 16) {
    const hi = v128.load(his + j);
    const residual = add ? v128.load(r + j) : hi;
    const value = one(v128.load(x + j), residual, hi, v128.load(scales + j), v128.load(offsets + j), add, relu);
    v128.store(y + j, value);
  }
  const rest = length & 3;
  if (rest == 0) return;
  const hi = loadRest(his + end, rest);
  const residual = add ? loadRest(r + end, rest) : hi;
  const scale = loadRest(scales + end, rest);
  const value = one(loadRest(x + end, rest), residual, hi, scale, loadRest(offsets + end, rest), add, relu);
  storeRest(y + end, value, rest);
}

/** A block of rows, strip by strip. */
// @ts-ignore: decorator
@inline
function strips(
  x: usize,
  r: usize,
  y: usize,
  rows: u32,
  his: usize,
  plane: usize,
  add: bool,
  relu: bool,
): void {
  const scales = his + plane;
  const offsets = scales + plane;
  const height = <usize> rows * plane;
  let j: usize = 0;
  for (const whole = plane & ~(bytes(STRIP) - 1); j < whole; j += bytes(STRIP)) {
    strip(x + j, r + j, y + j, height, his + j, plane, add, relu, true);
  }
  if (j + bytes(SHORT_STRIP) == plane) {
    strip(x + j, r + j, y + j, height, his + j, plane, add, relu, false);
    return;
  }
  for (; j < plane; j += 16) {
    const hi = v128.load(his + j), scale = v128.load(scales + j), offset = v128.load(offsets + j);
    for (let k = j; k < height; k += plane) {
      v128.store(y + k, one(v128.load(x + k), add ? v128.load(r + k) : hi, hi, scale, offset, add, relu));
    }
  }
}

/** A strip of four vectors, or of three. */
// @ts-ignore: decorator
@inline
function strip(
  x: usize,
  r: usize,
  y: usize,
  height: usize,
  his: usize,
  plane: usize,
  add: bool,
  relu: bool,
  four: bool,
): void {
  const scales = his + plane, offsets = his + 2 * plane;
  const h0 = v128.load(his), s0 = v128.load(scales), o0 = v128.load(offsets);
  const h1 = v128.load(his, 16), s1 = v128.load(scales, 16), o1 = v128.load(offsets, 16);
  const h2 = v128.load(his, 32), s2 = v128.load(scales, 32), o2 = v128.load(offsets, 32);
  const h3 = four ? v128.load(his, 48) : h2;
  const s3 = four ? v128.load(scales, 48) : s2, o3 = four ? v128.load(offsets, 48) : o2;
  for (const end = x + height; x < end; x += plane, r += plane, y += plane) {
    v128.store(y, one(v128.load(x), add ? v128.load(r) : h0, h0, s0, o0, add, relu));
    v128.store(y, one(v128.load(x, 16), add ? v128.load(r, 16) : h1, h1, s1, o1, add, relu), 16);
    v128.store(y, one(v128.load(x, 32), add ? v128.load(r, 32) : h2, h2, s2, o2, add, relu), 32);
    if (four) v128.store(y, one(v128.load(x, 48), add ? v128.load(r, 48) : h3, h3, s3, o3, add, relu), 48);
  }
}

/** Elements of a row or two, by what is done with them. */
function anyAcross(
  x: usize,
  r: usize,
  y: usize,
  length: u32,
  below: usize,
  at: usize,
  plane: usize,
  relu: bool,
): void {
  if (r) {
    if (relu) across(x, r, y, length, below, at, plane, true, true);
    else across(x, r, y, length, below, at, plane, true, false);
  } else if (relu) across(x, 0, y, length, below, at, plane, false, true);
  else across(x, 0, y, length, below, at, plane, false, false);
}

/** A block of rows, by what is done with them. */
function anyStrips(x: usize, r: usize, y: usize, rows: u32, at: usize, plane: usize, relu: bool): void {
  if (r) {
    if (relu) strips(x, r, y, rows, at, plane, true, true);
    else strips(x, r, y, rows, at, plane, true, false);
  } else if (relu) strips(x, 0, y, rows, at, plane, false, true);
  else strips(x, 0, y, rows, at, plane, false, false);
}

// y = (x - mean) * s * weight + bias, then + residual, then max(y, 0).
//
// mean = hi + lo, and lo is part of the offset: y = (x - hi) * scale + offset. The difference comes first, so that nothing
// is lost where |mean| is much larger than the deviation. Output and input may be the same memory.

import { address, MOST, narrow, readable } from "./storage";
import { bytes, loadRest, madd, rectified, storeRest } from "./vectors";

/** One vector of y. */
// @ts-ignore: decorator
@inline
function one(x: v128, residual: v128, hi: v128, scale: v128, offset: v128, add: bool, relu: bool): v128 {
  let y = madd(f32x4.sub(x, hi), scale, offset);
  if (add) y = f32x4.add(y, residual);
  return relu ? rectified(y) : y;
}

/** A run of one channel. */
// @ts-ignore: decorator
@inline
function run(x: usize, r: usize, y: usize, length: u32, h: f32, s: f32, o: f32, add: bool, relu: bool): void {
  const hi = f32x4.splat(h);
  const scale = f32x4.splat(s);
  const offset = f32x4.splat(o);
  const vectors = x + bytes(length & ~3);
  for (const end = x + bytes(length & ~15); x < end; x += 64, y += 64, r += 64) {
    const y0 = one(v128.load(x), add ? v128.load(r) : hi, hi, scale, offset, add, relu);
    const y1 = one(v128.load(x, 16), add ? v128.load(r, 16) : hi, hi, scale, offset, add, relu);
    const y2 = one(v128.load(x, 32), add ? v128.load(r, 32) : hi, hi, scale, offset, add, relu);
    const y3 = one(v128.load(x, 48), add ? v128.load(r, 48) : hi, hi, scale, offset, add, relu);
    v128.store(y, y0);
    v128.store(y, y1, 16);
    v128.store(y, y2, 32);
    v128.store(y, y3, 48);
  }
  for (; x < vectors; x += 16, y += 16, r += 16) {
    v128.store(y, one(v128.load(x), add ? v128.load(r) : hi, hi, scale, offset, add, relu));
  }
  const rest = length & 3;
  if (rest == 0) return;
  const residual = add ? loadRest(r, rest) : hi;
  storeRest(y, one(loadRest(x, rest), residual, hi, scale, offset, add, relu), rest);
}

/** Elements that lie as the lanes do, each with coefficients of its own; of two rows at once, if `below` is not 0. */
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

/**
 * Normalizes elements [from, to) of a tensor (N, channels, inner).
 *
 * @param x first byte of the input
 * @param residual first byte of what is added, in the same order; 0 for nothing
 * @param y first byte of the output; may be x
 * @param half 1 for float16, 0 for float32
 * @param coefficients planes of `channels` float32: hi, scale, offset
 * @param relu whether negative results become 0
 * @param scratch room for 2 x MOST float32
 */
export function normalizeRows(
  x: usize,
  residual: usize,
  y: usize,
  half: bool,
  channels: u32,
  inner: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  relu: bool,
  scratch: usize,
): void {
  if (from == to) return;
  const plane = bytes(channels);
  const row = from / inner;
  let rowEnd = (row + 1) * inner;
  let c = row % channels;
  while (from < to) {
    const length = min(rowEnd, to) - from;
    const part = half ? min(length, MOST) : length;
    const input = readable(x, from, part, half, scratch);
    const added = residual ? readable(residual, from, part, half, scratch + bytes(MOST)) : 0;
    const output = half ? scratch : address(y, from, false);
    const at = coefficients + bytes(c);
    const hi = load<f32>(at);
    const scale = load<f32>(at + plane);
    const offset = load<f32>(at + 2 * plane);
    if (residual) {
      if (relu) run(input, added, output, part, hi, scale, offset, true, true);
      else run(input, added, output, part, hi, scale, offset, true, false);
    } else if (relu) run(input, 0, output, part, hi, scale, offset, false, true);
    else run(input, 0, output, part, hi, scale, offset, false, false);
    if (half) narrow(scratch, address(y, from, true), part);
    from += part;
    if (from == rowEnd) {
      rowEnd += inner;
      if (++c == channels) c = 0;
    }
  }
}

/**
 * Normalizes elements [from, to) of a tensor whose rows hold `period` lanes, each with coefficients of its own.
 *
 * @param period lanes of a row; `from` is a multiple of it
 * @param coefficients planes of `period` float32: hi, scale, offset
 * The other parameters are those of normalizeRows.
 */
export function normalizeColumns(
  x: usize,
  residual: usize,
  y: usize,
  half: bool,
  period: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  relu: bool,
  scratch: usize,
): void {
  const plane = bytes(period);
  let lane: u32 = 0;
  while (from < to) {
    const length = min(period - lane, to - from);
    const part = half ? min(length, MOST) : length;
    const two = !half && to - from >= 2 * period;
    const below = two ? plane : 0;
    const input = readable(x, from, part, half, scratch);
    const added = residual ? readable(residual, from, part, half, scratch + bytes(MOST)) : 0;
    const output = half ? scratch : address(y, from, false);
    const at = coefficients + bytes(lane);
    if (residual) {
      if (relu) across(input, added, output, part, below, at, plane, true, true);
      else across(input, added, output, part, below, at, plane, true, false);
    } else if (relu) across(input, 0, output, part, below, at, plane, false, true);
    else across(input, 0, output, part, below, at, plane, false, false);
    if (half) narrow(scratch, address(y, from, true), part);
    if (two) from += period;
    from += part;
    lane += part;
    if (lane == period) lane = 0;
  }
}

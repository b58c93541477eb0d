// The one walk over elements by coefficients of their channels, forward's and backward's. Where the elements of a channel lie side
// by side, a row is one channel of one sample. Else memory is a matrix whose rows hold `period` lanes, each with coefficients of
// its own, walked as columns.ts says. Coefficients are planes of float32: hi, scale, offset, and for dx slope.

import { distanceOfPairs, HALF_STRIP, rowOfPair, rowsOfBlock, SHORT_STRIP, STRIP } from "./columns";
import { BACK, BOUNDED, G, GATED, last, PASSED, RELU, step, steps, X } from "./formula";
import { address, MOST, narrow, readable } from "./storage";
import { bytes, hasBounds } from "./vectors";

/**
 * Computes elements [from, to) of y from x and the residual g, or those of dx (y) from x and dy (g) where `output` is positive, and
 * with `passed` those of the residual's gradient; tensors that there are not are 0. `kind` is RELU, BACK or 0. `from` is a multiple
 * of the period, which is 0 where rows are channels; `inStrips` says whether rows of lanes are walked in strips; `scratch` has
 * room for 4 x MOST float32, of which y needs 2.
 */
export function map(
  x: usize, g: usize, output: usize, y: usize, passed: usize, half: bool, inStrips: bool, channels: u32, inner: u32,
  period: u32, from: u32, to: u32, coefficients: usize, scratch: usize, kind: u32,
): void {
  if (from == to) return;
  if (x) kind |= X;
  if (g) kind |= G;
  if (output) kind |= GATED;
  if (passed) kind |= PASSED;
  if (kind & (RELU | GATED) && hasBounds()) kind |= BOUNDED;
  if (period && !half) from = wholeRows(x, g, output, y, passed, inStrips, period, from, to, coefficients, kind);
  // What is left: all of rows that are channels; a row without a partner, and the elements of a last one that is not whole.
  const width = period ? period : inner;
  const plane = bytes(period ? period : channels);
  const room = bytes(MOST);
  const row = from / width;
  let end = (row + 1) * width;
  let c = row % channels;
  while (from < to) {
    const length = half ? min(min(end, to) - from, MOST) : min(end, to) - from;
    const rows = half || period || from + width != end ? 1 : max((to - from) / width, 1);
    const input = x ? readable(x, from, length, half, scratch) : 0;
    const term = g ? readable(g, from, length, half, scratch + room) : 0;
    const gate = output ? readable(output, from, length, half, scratch + 2 * room) : 0;
    const result = !half ? address(y, from, false) : g ? scratch + room : scratch;
    const through = !half ? address(passed, from, false) : scratch + 3 * room;
    if (period) across(input, term, gate, result, through, length, 0, coefficients + bytes(width - (end - from)), plane, kind);
    else runs(input, term, gate, result, through, length, rows, c, channels, coefficients, plane, kind);
    if (half) {
      narrow(result, address(y, from, true), length);
      if (passed) narrow(through, address(passed, from, true), length);
    }
    from += length * rows;
    if (from >= end) {
      end = from + width;
      c = (c + rows) % channels;
    }
  }
}

/** Whole rows of lanes, all in strips, or else in pairs; gives the element that comes after them. */
function wholeRows(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, inStrips: bool, period: u32, from: u32, to: u32,
  at: usize, kind: u32,
): u32 {
  const plane = bytes(period);
  const rows = (to - from) / period;
  let done: u32 = 0;
  if (inStrips && kind & X && !(kind & BOUNDED)) {
    const block = rowsOfBlock(period) / (kind & BACK ? 2 : 1); // x, dy and dx are three.
    for (; done < rows; done += block) {
      const i = bytes(from + done * period);
      strips(x + i, g + i, gate + i, y + i, passed + i, min(block, rows - done), at, plane, kind);
    }
    return from + rows * period;
  }
  const distance = distanceOfPairs(rows, period);
  const below = bytes(distance * period);
  for (; done + 1 < rows; done += 2) {
    const i = bytes(from + rowOfPair(done / 2, distance) * period);
    across(x + i, g + i, gate + i, y + i, passed + i, period, below, at, plane, kind);
  }
  return from + done * period;
}

const DX: u32 = BACK | G;
const CENTRED: u32 = DX | X;

/** Runs of one channel each, one after the other: all rows in one call, as one of [.., 7, 7] takes no longer than a call. */
function runs(
  x: usize, g: usize, z: usize, y: usize, p: usize, length: u32, rows: u32, c: u32, channels: u32, at: usize,
  plane: usize, kind: u32,
): void {
  switch (kind) {
    case X: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X);
    case X | G: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X | G);
    case X | RELU: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X | RELU);
    case X | RELU | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X | RELU | BOUNDED);
    case X | G | RELU: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X | G | RELU);
    case X | G | RELU | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, X | G | RELU | BOUNDED);
    case CENTRED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED);
    case CENTRED | GATED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED | GATED);
    case CENTRED | GATED | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED | GATED | BOUNDED);
    case CENTRED | PASSED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED | PASSED);
    case CENTRED | GATED | PASSED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED | GATED | PASSED);
    case CENTRED | GATED | PASSED | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, CENTRED | GATED | PASSED | BOUNDED);
    case DX: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX);
    case DX | GATED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX | GATED);
    case DX | GATED | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX | GATED | BOUNDED);
    case DX | PASSED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX | PASSED);
    case DX | GATED | PASSED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX | GATED | PASSED);
    case DX | GATED | PASSED | BOUNDED: return runsOf(x, g, z, y, p, length, rows, c, channels, at, plane, DX | GATED | PASSED | BOUNDED);
  }
}

// @ts-ignore: decorator
@inline
function runsOf(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, rows: u32, c: u32, channels: u32, his: usize,
  plane: usize, kind: u32,
): void {
  const size = bytes(length), rest = length & 3;
  for (; rows; rows--, x += size, g += size, gate += size, y += size, passed += size) {
    const at = his + bytes(c);
    const s = v128.load32_splat(at + plane), h = kind & X ? v128.load32_splat(at) : s;
    const o = kind & X ? v128.load32_splat(at + 2 * plane) : s;
    const l = kind & BACK && kind & X ? v128.load32_splat(at + 3 * plane) : s;
    let j = bytes(length & ~15);
    if (kind & BOUNDED) j = 0;
    else steps(x, g, gate, y, passed, j, 64, h, h, h, h, s, s, s, s, o, o, o, o, l, l, l, l, 4, kind);
    for (const whole = bytes(length & ~3); j < whole; j += 16) {
      step(x + j, g + j, gate + j, y + j, passed + j, h, s, o, l, kind);
    }
    if (rest) last(x + j, g + j, gate + j, y + j, passed + j, h, s, o, l, rest, kind);
    if (++c == channels) c = 0;
  }
}

/** Elements of a row of lanes; of two rows at once, if `below` is not 0: those are whole. */
function across(
  x: usize, g: usize, z: usize, y: usize, p: usize, length: u32, below: usize, at: usize, plane: usize, kind: u32,
): void {
  switch (kind) {
    case X: return acrossOf(x, g, z, y, p, length, below, at, plane, X);
    case X | G: return acrossOf(x, g, z, y, p, length, below, at, plane, X | G);
    case X | RELU: return acrossOf(x, g, z, y, p, length, below, at, plane, X | RELU);
    case X | RELU | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, X | RELU | BOUNDED);
    case X | G | RELU: return acrossOf(x, g, z, y, p, length, below, at, plane, X | G | RELU);
    case X | G | RELU | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, X | G | RELU | BOUNDED);
    case CENTRED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED);
    case CENTRED | GATED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED | GATED);
    case CENTRED | GATED | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED | GATED | BOUNDED);
    case CENTRED | PASSED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED | PASSED);
    case CENTRED | GATED | PASSED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED | GATED | PASSED);
    case CENTRED | GATED | PASSED | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, CENTRED | GATED | PASSED | BOUNDED);
    case DX: return acrossOf(x, g, z, y, p, length, below, at, plane, DX);
    case DX | GATED: return acrossOf(x, g, z, y, p, length, below, at, plane, DX | GATED);
    case DX | GATED | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, DX | GATED | BOUNDED);
    case DX | PASSED: return acrossOf(x, g, z, y, p, length, below, at, plane, DX | PASSED);
    case DX | GATED | PASSED: return acrossOf(x, g, z, y, p, length, below, at, plane, DX | GATED | PASSED);
    case DX | GATED | PASSED | BOUNDED: return acrossOf(x, g, z, y, p, length, below, at, plane, DX | GATED | PASSED | BOUNDED);
  }
}

// @ts-ignore: decorator
@inline
function acrossOf(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, below: usize, his: usize, plane: usize,
  kind: u32,
): void {
  const scales = his + plane, offsets = scales + plane, slopes = offsets + plane;
  const whole = bytes(length & ~3);
  const end = bytes(length);
  for (let j: usize = 0; j < end; j += 16) {
    // Whole vectors even at the end: a plane is a multiple of them.
    const s = v128.load(scales + j), h = kind & X ? v128.load(his + j) : s;
    const o = kind & X ? v128.load(offsets + j) : s, l = kind & BACK && kind & X ? v128.load(slopes + j) : s;
    if (j == whole) return last(x + j, g + j, gate + j, y + j, passed + j, h, s, o, l, length & 3, kind);
    step(x + j, g + j, gate + j, y + j, passed + j, h, s, o, l, kind);
    if (below) step(x + j + below, g + j + below, gate + j + below, y + j + below, passed + j + below, h, s, o, l, kind);
  }
}

/** A block of rows of lanes, strip by strip. */
function strips(x: usize, g: usize, z: usize, y: usize, p: usize, rows: u32, at: usize, plane: usize, kind: u32): void {
  switch (kind) {
    case X: return stripsOf(x, g, z, y, p, rows, at, plane, X);
    case X | G: return stripsOf(x, g, z, y, p, rows, at, plane, X | G);
    case X | RELU: return stripsOf(x, g, z, y, p, rows, at, plane, X | RELU);
    case X | G | RELU: return stripsOf(x, g, z, y, p, rows, at, plane, X | G | RELU);
    case CENTRED: return stripsOf(x, g, z, y, p, rows, at, plane, CENTRED);
    case CENTRED | GATED: return stripsOf(x, g, z, y, p, rows, at, plane, CENTRED | GATED);
    case CENTRED | PASSED: return stripsOf(x, g, z, y, p, rows, at, plane, CENTRED | PASSED);
    case CENTRED | GATED | PASSED: return stripsOf(x, g, z, y, p, rows, at, plane, CENTRED | GATED | PASSED);
  }
}

/** Whole strips for y, half ones for dx, which has four coefficients, or short ones; then vectors. */
// @ts-ignore: decorator
@inline
function stripsOf(x: usize, g: usize, gate: usize, y: usize, passed: usize, rows: u32, at: usize, plane: usize, kind: u32): void {
  const height = <usize> rows * plane;
  let j: usize = 0;
  if (!(kind & BACK)) {
    for (const whole = plane & ~(bytes(STRIP) - 1); j < whole; j += bytes(STRIP)) {
      strip(x + j, g + j, gate + j, y + j, passed + j, height, at + j, plane, 4, kind);
    }
  }
  if (j + bytes(SHORT_STRIP) == plane) {
    return strip(x + j, g + j, gate + j, y + j, passed + j, height, at + j, plane, 3, kind);
  }
  if (kind & BACK) {
    for (const whole = plane & ~(bytes(HALF_STRIP) - 1); j < whole; j += bytes(HALF_STRIP)) {
      strip(x + j, g + j, gate + j, y + j, passed + j, height, at + j, plane, 2, kind);
    }
  }
  for (; j < plane; j += 16) strip(x + j, g + j, gate + j, y + j, passed + j, height, at + j, plane, 1, kind);
}

/** A strip of so many vectors, its coefficients in registers. */
// @ts-ignore: decorator
@inline
function strip(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, height: usize, his: usize, plane: usize, vectors: u32,
  kind: u32,
): void {
  const scales = his + plane, offsets = scales + plane, slopes = offsets + plane;
  const h0 = v128.load(his), h1 = vectors > 1 ? v128.load(his, 16) : h0;
  const h2 = vectors > 2 ? v128.load(his, 32) : h0, h3 = vectors > 3 ? v128.load(his, 48) : h0;
  const s0 = v128.load(scales), s1 = vectors > 1 ? v128.load(scales, 16) : h0;
  const s2 = vectors > 2 ? v128.load(scales, 32) : h0, s3 = vectors > 3 ? v128.load(scales, 48) : h0;
  const o0 = v128.load(offsets), o1 = vectors > 1 ? v128.load(offsets, 16) : h0;
  const o2 = vectors > 2 ? v128.load(offsets, 32) : h0, o3 = vectors > 3 ? v128.load(offsets, 48) : h0;
  const l0 = kind & BACK ? v128.load(slopes) : h0, l1 = kind & BACK && vectors > 1 ? v128.load(slopes, 16) : h0;
  const l2 = kind & BACK && vectors > 2 ? v128.load(slopes, 32) : h0;
  steps(
    x, g, gate, y, passed, height, plane, h0, h1, h2, h3, s0, s1, s2, s3, o0, o1, o2, o3, l0, l1, l2, l2, vectors, kind,
  );
}

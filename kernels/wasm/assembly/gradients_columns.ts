// Gradients where the channels lie side by side: memory is a matrix whose rows hold `period` lanes, each with coefficients of
// its own, walked as columns.ts says.

import { distanceOfPairs, HALF_STRIP, rowOfPair, rowsOfBlock, SHORT_STRIP } from "./columns";
import { dxOf } from "./gradients";
import { gradientsOfRows } from "./gradients_rows";
import { address, further, MOST, narrow, readable } from "./storage";
import { bytes, gated, loadGated, loadRest, storeRest } from "./vectors";

/**
 * Gradients of elements [from, to) as gradientsOfRows says where `period` is 0; or else of tensors whose rows hold `period` lanes,
 * each with coefficients of its own. `from` is a multiple of the period, and `inStrips` says whether rows are walked in strips.
 */
export function gradients(
  x: usize,
  dy: usize,
  output: usize,
  dx: usize,
  passed: usize,
  half: bool,
  inStrips: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  scratch: usize,
): void {
  if (period == 0) {
    return gradientsOfRows(x, dy, output, dx, passed, half, channels, inner, from, to, coefficients, scratch);
  }
  if (half) return halvesOfColumns(x, dy, output, dx, passed, period, from, to, coefficients, scratch);
  const first = bytes(from);
  x = further(x, first);
  output = further(output, first);
  passed = further(passed, first);
  floatsOfColumns(x, dy + first, output, dx + first, passed, inStrips, period, to - from, coefficients);
}

function floatsOfColumns(
  x: usize,
  dy: usize,
  output: usize,
  dx: usize,
  passed: usize,
  inStrips: bool,
  period: u32,
  elements: u32,
  at: usize,
): void {
  const plane = bytes(period);
  const rows = elements / period;
  let done: u32 = 0;
  if (x && inStrips) {
    const block = rowsOfBlock(period) / 2; // x, dy and dx are three.
    for (; done < rows; done += block) {
      const to = bytes(done * period);
      const height = min(block, rows - done);
      anyStrips(x + to, dy + to, further(output, to), dx + to, further(passed, to), height, at, plane);
    }
    done = rows;
  } else {
    const distance = distanceOfPairs(rows, period);
    const below = bytes(distance * period);
    for (; done + 1 < rows; done += 2) {
      const to = bytes(rowOfPair(done / 2, distance) * period);
      const input = further(x, to), gate = further(output, to);
      anyAcross(input, dy + to, gate, dx + to, further(passed, to), period, below, at, plane);
    }
  }
  // A row without a partner, and the elements of a last one that is not whole.
  for (let rest = elements - done * period; rest > 0; done++) {
    const to = bytes(done * period);
    const length = min(rest, period);
    anyAcross(further(x, to), dy + to, further(output, to), dx + to, further(passed, to), length, 0, at, plane);
    rest -= length;
  }
}

function halvesOfColumns(
  x: usize,
  dy: usize,
  output: usize,
  dx: usize,
  passed: usize,
  period: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  scratch: usize,
): void {
  const room = bytes(MOST);
  const result = scratch + room;
  const through = passed ? scratch + 3 * room : 0;
  let lane: u32 = 0;
  while (from < to) {
    const length = min(min(period - lane, to - from), MOST);
    const input = x ? readable(x, from, length, true, scratch) : 0;
    const given = readable(dy, from, length, true, result);
    const gate = output ? readable(output, from, length, true, scratch + 2 * room) : 0;
    anyAcross(input, given, gate, result, through, length, 0, coefficients + bytes(lane), bytes(period));
    narrow(result, address(dx, from, true), length);
    if (passed) narrow(through, address(passed, from, true), length);
    from += length;
    lane += length;
    if (lane == period) lane = 0;
  }
}

/** A block of rows, by which parts its formula has. */
function anyStrips(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  rows: u32,
  at: usize,
  plane: usize,
): void {
  if (gate && passed) strips(x, g, gate, dx, passed, rows, at, plane, true, true);
  else if (gate) strips(x, g, gate, dx, 0, rows, at, plane, true, false);
  else if (passed) strips(x, g, 0, dx, passed, rows, at, plane, false, true);
  else strips(x, g, 0, dx, 0, rows, at, plane, false, false);
}

/** A block of rows of a centred gradient, half a strip after the other: there are four coefficients. */
// @ts-ignore: decorator
@inline
function strips(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  rows: u32,
  his: usize,
  plane: usize,
  hasGate: bool,
  pass: bool,
): void {
  const scales = his + plane;
  const slopes = scales + plane;
  const offsets = slopes + plane;
  const height = <usize> rows * plane;
  let j: usize = 0;
  if (plane == bytes(SHORT_STRIP)) {
    const h0 = v128.load(his), s0 = v128.load(scales), l0 = v128.load(slopes), o0 = v128.load(offsets);
    const h1 = v128.load(his, 16), s1 = v128.load(scales, 16), l1 = v128.load(slopes, 16), o1 = v128.load(offsets, 16);
    const h2 = v128.load(his, 32), s2 = v128.load(scales, 32), l2 = v128.load(slopes, 32), o2 = v128.load(offsets, 32);
    for (; j < height; j += plane) {
      const g0 = loadGated(g + j, gate + j, hasGate);
      v128.store(dx + j, dxOf(v128.load(x + j), g0, h0, s0, l0, o0, true));
      if (pass) v128.store(passed + j, g0);
      const g1 = loadGated(g + j + 16, gate + j + 16, hasGate);
      v128.store(dx + j, dxOf(v128.load(x + j, 16), g1, h1, s1, l1, o1, true), 16);
      if (pass) v128.store(passed + j, g1, 16);
      const g2 = loadGated(g + j + 32, gate + j + 32, hasGate);
      v128.store(dx + j, dxOf(v128.load(x + j, 32), g2, h2, s2, l2, o2, true), 32);
      if (pass) v128.store(passed + j, g2, 32);
    }
    return;
  }
  for (const whole = plane & ~(bytes(HALF_STRIP) - 1); j < whole; j += bytes(HALF_STRIP)) {
    const h0 = v128.load(his + j), s0 = v128.load(scales + j);
    const h1 = v128.load(his + j, 16), s1 = v128.load(scales + j, 16);
    const l0 = v128.load(slopes + j), o0 = v128.load(offsets + j);
    const l1 = v128.load(slopes + j, 16), o1 = v128.load(offsets + j, 16);
    let input = x + j, gradient = g + j, output = gate + j, result = dx + j, through = passed + j;
    for (const end = input + height; input < end; input += plane) {
      const g0 = loadGated(gradient, output, hasGate);
      const g1 = loadGated(gradient + 16, output + 16, hasGate);
      v128.store(result, dxOf(v128.load(input), g0, h0, s0, l0, o0, true));
      v128.store(result, dxOf(v128.load(input, 16), g1, h1, s1, l1, o1, true), 16);
      if (pass) {
        v128.store(through, g0);
        v128.store(through, g1, 16);
        through += plane;
      }
      gradient += plane;
      output += plane;
      result += plane;
    }
  }
  for (; j < plane; j += 16) {
    const hi = v128.load(his + j), scale = v128.load(scales + j);
    const slope = v128.load(slopes + j), offset = v128.load(offsets + j);
    for (let k = j; k < height; k += plane) {
      const gradient = loadGated(g + k, gate + k, hasGate);
      v128.store(dx + k, dxOf(v128.load(x + k), gradient, hi, scale, slope, offset, true));
      if (pass) v128.store(passed + k, gradient);
    }
  }
}

/** Elements that lie as the lanes do, by which parts their formula has. */
function anyAcross(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  length: u32,
  below: usize,
  at: usize,
  plane: usize,
): void {
  if (x && !gate && !passed && below) {
    return across(x, g, 0, dx, 0, length, below, at, plane, true, false, false);
  }
  if (x && !gate && !passed) return across(x, g, 0, dx, 0, length, 0, at, plane, true, false, false);
  if (x && gate && !passed) return across(x, g, gate, dx, 0, length, below, at, plane, true, true, false);
  if (x && gate) return across(x, g, gate, dx, passed, length, below, at, plane, true, true, true);
  if (x) return across(x, g, 0, dx, passed, length, below, at, plane, true, false, true);
  if (!gate && !passed) return across(0, g, 0, dx, 0, length, below, at, plane, false, false, false);
  if (gate && !passed) return across(0, g, gate, dx, 0, length, below, at, plane, false, true, false);
  if (gate) return across(0, g, gate, dx, passed, length, below, at, plane, false, true, true);
  across(0, g, 0, dx, passed, length, below, at, plane, false, false, true);
}

/** Elements that lie as the lanes do, each with coefficients of its own; of two rows at once, if `below` is not 0. */
// @ts-ignore: decorator
@inline
function across(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  length: u32,
  below: usize,
  his: usize,
  plane: usize,
  centred: bool,
  hasGate: bool,
  pass: bool,
): void {
  const scales = his + plane;
  const slopes = scales + plane;
  const offsets = slopes + plane;
  const end = bytes(length & ~3);
  for (let j: usize = 0; j < end; j += 16) {
    const scale = v128.load(scales + j);
    const hi = centred ? v128.load(his + j) : scale;
    const slope = centred ? v128.load(slopes + j) : scale;
    const offset = centred ? v128.load(offsets + j) : scale;
    const upper = loadGated(g + j, gate + j, hasGate);
    const input = centred ? v128.load(x + j) : scale;
    const result = dxOf(input, upper, hi, scale, slope, offset, centred);
    if (below) {
      const k = j + below;
      const lower = loadGated(g + k, gate + k, hasGate);
      const next = centred ? v128.load(x + k) : scale;
      v128.store(dx + k, dxOf(next, lower, hi, scale, slope, offset, centred));
      if (pass) v128.store(passed + k, lower);
    }
    v128.store(dx + j, result);
    if (pass) v128.store(passed + j, upper);
  }
  const rest = length & 3;
  if (rest == 0) return;
  const dy = loadRest(g + end, rest);
  const gradient = hasGate ? gated(dy, loadRest(gate + end, rest)) : dy;
  const scale = loadRest(scales + end, rest);
  const hi = loadRest(his + end, rest);
  const slope = loadRest(slopes + end, rest);
  const offset = loadRest(offsets + end, rest);
  const input = centred ? loadRest(x + end, rest) : scale;
  storeRest(dx + end, dxOf(input, gradient, hi, scale, slope, offset, centred), rest);
  if (pass) storeRest(passed + end, gradient, rest);
}

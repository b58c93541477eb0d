// dx = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), as scale * (dy + offset + (x - hi) * slope); without
// sums (evaluation) dx = scale * dy, and x is not read. No two of these factors are multiplied into one: s^3 leaves the range of
// float32 where dx does not. dy counts as 0 where forward's output was not positive, if there was a ReLU; it
// is then also the gradient of the residual. dx may be the same memory as dy.

import { address, MOST, narrow, readable } from "./storage";
import { bytes, gated, loadRest, madd, storeRest } from "./vectors";

/** Which parts of the formula a loop has; known when it is compiled. */
// @ts-ignore: decorator
@inline
function dxOf(x: v128, g: v128, hi: v128, scale: v128, slope: v128, offset: v128, centred: bool): v128 {
  return f32x4.mul(centred ? madd(f32x4.sub(x, hi), slope, f32x4.add(g, offset)) : g, scale);
}

/** A vector of dy, behind the gate if there is one. */
// @ts-ignore: decorator
@inline
function dyAt(g: usize, gate: usize, hasGate: bool): v128 {
  return hasGate ? gated(v128.load(g), v128.load(gate)) : v128.load(g);
}

/** A run of one channel. */
// @ts-ignore: decorator
@inline
function run(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  length: u32,
  at: usize,
  plane: usize,
  centred: bool,
  hasGate: bool,
  pass: bool,
): void {
  const hi = v128.load32_splat(at);
  const scale = v128.load32_splat(at + plane);
  const slope = v128.load32_splat(at + 2 * plane);
  const offset = v128.load32_splat(at + 3 * plane);
  const vectors = g + bytes(length & ~3);
  for (const end = g + bytes(length & ~15); g < end; g += 64) {
    const g0 = dyAt(g, gate, hasGate);
    const g1 = dyAt(g + 16, gate + 16, hasGate);
    const g2 = dyAt(g + 32, gate + 32, hasGate);
    const g3 = dyAt(g + 48, gate + 48, hasGate);
    const d0 = dxOf(centred ? v128.load(x) : hi, g0, hi, scale, slope, offset, centred);
    const d1 = dxOf(centred ? v128.load(x, 16) : hi, g1, hi, scale, slope, offset, centred);
    const d2 = dxOf(centred ? v128.load(x, 32) : hi, g2, hi, scale, slope, offset, centred);
    const d3 = dxOf(centred ? v128.load(x, 48) : hi, g3, hi, scale, slope, offset, centred);
    v128.store(dx, d0);
    v128.store(dx, d1, 16);
    v128.store(dx, d2, 32);
    v128.store(dx, d3, 48);
    if (pass) {
      v128.store(passed, g0);
      v128.store(passed, g1, 16);
      v128.store(passed, g2, 32);
      v128.store(passed, g3, 48);
      passed += 64;
    }
    x += 64;
    gate += 64;
    dx += 64;
  }
  for (; g < vectors; g += 16) {
    const gradient = dyAt(g, gate, hasGate);
    v128.store(dx, dxOf(centred ? v128.load(x) : hi, gradient, hi, scale, slope, offset, centred));
    if (pass) {
      v128.store(passed, gradient);
      passed += 16;
    }
    x += 16;
    gate += 16;
    dx += 16;
  }
  const rest = length & 3;
  if (rest == 0) return;
  const dy = loadRest(g, rest);
  const gradient = hasGate ? gated(dy, loadRest(gate, rest)) : dy;
  const input = centred ? loadRest(x, rest) : hi;
  storeRest(dx, dxOf(input, gradient, hi, scale, slope, offset, centred), rest);
  if (pass) storeRest(passed, gradient, rest);
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
    const upper = dyAt(g + j, gate + j, hasGate);
    const input = centred ? v128.load(x + j) : scale;
    const result = dxOf(input, upper, hi, scale, slope, offset, centred);
    if (below) {
      const k = j + below;
      const lower = dyAt(g + k, gate + k, hasGate);
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

/** The run, by which parts its formula has. */
function anyRun(
  x: usize,
  g: usize,
  gate: usize,
  dx: usize,
  passed: usize,
  length: u32,
  at: usize,
  plane: usize,
): void {
  if (x && !gate && !passed) return run(x, g, 0, dx, 0, length, at, plane, true, false, false);
  if (x && gate && !passed) return run(x, g, gate, dx, 0, length, at, plane, true, true, false);
  if (x && gate) return run(x, g, gate, dx, passed, length, at, plane, true, true, true);
  if (x) return run(x, g, 0, dx, passed, length, at, plane, true, false, true);
  if (!gate && !passed) return run(0, g, 0, dx, 0, length, at, plane, false, false, false);
  if (gate && !passed) return run(0, g, gate, dx, 0, length, at, plane, false, true, false);
  if (gate) return run(0, g, gate, dx, passed, length, at, plane, false, true, true);
  run(0, g, 0, dx, passed, length, at, plane, false, false, true);
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

/**
 * Gradient of elements [from, to) of an input, and of the residual. The elements of a channel, `inner` of them, lie side by
 * side; with an `inner` of 0 the channels do.
 *
 * @param x first byte of forward's input; 0 in evaluation
 * @param dy first byte of the gradient of its output
 * @param output first byte of its output, where dy counts only if that is positive; 0 where dy always counts
 * @param dx first byte of the gradient of the input; may be dy
 * @param passed first byte of the gradient of the residual; 0 for none
 * @param half 1 for float16, 0 for float32
 * @param lanes channels, or lanes of a row where the channels lie side by side
 * @param coefficients planes of `lanes` float32: hi, scale, slope, offset
 * @param scratch room for 4 x MOST float32
 */
export function gradients(
  x: usize,
  dy: usize,
  output: usize,
  dx: usize,
  passed: usize,
  half: bool,
  lanes: u32,
  inner: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  scratch: usize,
): void {
  if (from == to) return;
  const plane = bytes(lanes);
  const room = bytes(MOST);
  const extent = inner ? inner : lanes;
  const row = from / extent;
  let rowEnd = (row + 1) * extent;
  let c = inner ? row % lanes : 0;
  while (from < to) {
    const length = min(rowEnd, to) - from;
    const part = half ? min(length, MOST) : length;
    const inputs = x ? readable(x, from, part, half, scratch) : 0;
    const given = readable(dy, from, part, half, scratch + room);
    const gates = output ? readable(output, from, part, half, scratch + 2 * room) : 0;
    const result = half ? scratch + room : address(dx, from, false);
    const through = passed ? (half ? scratch + 3 * room : address(passed, from, false)) : 0;
    const two = !inner && !half && to - from >= 2 * extent;
    if (inner) anyRun(inputs, given, gates, result, through, part, coefficients + bytes(c), plane);
    else {
      const at = coefficients + bytes(extent - (rowEnd - from));
      anyAcross(inputs, given, gates, result, through, part, two ? plane : 0, at, plane);
    }
    if (half) {
      narrow(result, address(dx, from, true), part);
      if (passed) narrow(through, address(passed, from, true), part);
    }
    from += part;
    if (two) {
      from += extent;
      rowEnd += extent;
    }
    if (from == rowEnd) {
      rowEnd += extent;
      if (inner && ++c == lanes) c = 0;
    }
  }
}

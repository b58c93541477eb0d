// Gradients where the elements of a channel lie side by side: a row is one channel of one sample.

import { dxOf } from "./gradients";
import { address, MOST, narrow, readable } from "./storage";
import { bytes, gated, loadGated, loadRest, storeRest } from "./vectors";

/**
 * Gradient of elements [from, to) of an input (N, channels, inner), and, unless `passed` is 0, of the residual. x is 0 in
 * evaluation; dy counts only where `output` is positive, if that is not 0; dx may be dy; `coefficients` are planes of `channels`
 * float32: hi, scale, slope, offset; `scratch` has room for 4 x MOST float32.
 */
export function gradientsOfRows(
  x: usize,
  dy: usize,
  output: usize,
  dx: usize,
  passed: usize,
  half: bool,
  channels: u32,
  inner: u32,
  from: u32,
  to: u32,
  coefficients: usize,
  scratch: usize,
): void {
  if (from == to) return;
  const plane = bytes(channels);
  const room = bytes(MOST);
  const row = from / inner;
  let rowEnd = (row + 1) * inner;
  let c = row % channels;
  while (from < to) {
    const length = min(rowEnd, to) - from;
    const part = half ? min(length, MOST) : length;
    const input = x ? readable(x, from, part, half, scratch) : 0;
    const given = readable(dy, from, part, half, scratch + room);
    const gate = output ? readable(output, from, part, half, scratch + 2 * room) : 0;
    const result = half ? scratch + room : address(dx, from, false);
    const through = passed ? (half ? scratch + 3 * room : address(passed, from, false)) : 0;
    anyRun(input, given, gate, result, through, part, coefficients + bytes(c), plane);
    if (half) {
      narrow(result, address(dx, from, true), part);
      if (passed) narrow(through, address(passed, from, true), part);
    }
    from += part;
    if (from == rowEnd) {
      rowEnd += inner;
      if (++c == channels) c = 0;
    }
  }
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
    const g0 = loadGated(g, gate, hasGate);
    const g1 = loadGated(g + 16, gate + 16, hasGate);
    const g2 = loadGated(g + 32, gate + 32, hasGate);
    const g3 = loadGated(g + 48, gate + 48, hasGate);
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
    const gradient = loadGated(g, gate, hasGate);
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

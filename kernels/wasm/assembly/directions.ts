// The walk of second order: how y moves along a direction u of x, and the gradient z of the input of a backward pass of v, which is
// dy. Both are linear combinations, with coefficients per channel, of tensors that are read once for both:
//
// y = a*u + b*xhat + c, then + r, or 0 where forward's output was not positive; z = a'*u + b'*v + c'*xhat + d', where v counts as 0
// there. xhat = (x - hi) * s, so that coefficients are as large as the results. Weights of examples scale all of z but b'*v, or where
// there is no z all of y but a*u and r.

import { counted, weightsAt } from "./places";
import { address, narrow, readable } from "./storage";
import { bytes, loadRest, madd, storeRest, through, zeros } from "./vectors";

/** Parts of a loop's formula, known when it is compiled: it has a z, and v; a gate; coefficients of every lane. */
const Z: u32 = 1;
const GATED: u32 = 2;
const LANES: u32 = 4;

/** Float32 elements of a run that is widened at once, or has weights: eight of them stay in the first-level cache. */
const RUN: u32 = 1024;

/**
 * Computes elements [from, to) of y, and of z unless it is 0; r and `gate` are 0 where there are none. Memory is walked as map.ts
 * has it, a row at a time; coefficients are planes of float32: hi, s, a, b, c, and for z a', b', c', d'. `scratch` has room for
 * a run of weights and a vector more where there are some, and for 7 x RUN float32 behind it where elements are halves.
 */
export function follow(
  x: usize, u: usize, v: usize, gate: usize, r: usize, y: usize, z: usize, half: bool, channels: u32, inner: u32,
  period: u32, from: u32, to: u32, coefficients: usize, scratch: usize, weights: usize,
): void {
  if (from == to) return;
  const ofWeights = scratch;
  if (weights) scratch += bytes(RUN) + 64;
  const kind = (z ? Z : 0) | (gate ? GATED : 0);
  const width = period ? period : inner;
  const plane = bytes(period ? period : channels);
  const room = bytes(RUN);
  const row = from / width;
  let end = (row + 1) * width;
  let c = row % channels;
  while (from < to) {
    const length = half || weights ? min(min(end, to) - from, RUN) : min(end, to) - from;
    const input = readable(x, from, length, half, scratch);
    const along = readable(u, from, length, half, scratch + room);
    const gradient = z ? readable(v, from, length, half, scratch + 2 * room) : 0;
    const open = gate ? readable(gate, from, length, half, scratch + 3 * room) : 0;
    const added = r ? readable(r, from, length, half, scratch + 4 * room) : 0;
    const moved = half ? scratch + 5 * room : address(y, from, false);
    const second = half ? scratch + 6 * room : address(z, from, false);
    const at = coefficients + bytes(period ? width - (end - from) : c);
    const by = weights ? weightsAt(weights, from, length, channels, inner, ofWeights) : 0;
    part(input, along, gradient, open, added, moved, second, length, at, plane, period != 0, kind, by);
    if (half) {
      narrow(moved, address(y, from, true), length);
      if (z) narrow(second, address(z, from, true), length);
    }
    from += length;
    if (from == end) {
      end += width;
      if (++c == channels) c = 0;
    }
  }
}

/** Elements of one channel, or of a row of lanes. */
function part(
  x: usize, u: usize, v: usize, g: usize, r: usize, y: usize, z: usize, length: u32, at: usize, plane: usize,
  lanes: bool, kind: u32, weights: usize,
): void {
  const whole = bytes(length & ~3);
  switch (kind & (Z | GATED) | (lanes ? LANES : 0)) {
    case 0: vectors(x, u, v, g, r, y, z, whole, at, plane, 0, weights); break;
    case Z: vectors(x, u, v, g, r, y, z, whole, at, plane, Z, weights); break;
    case GATED: vectors(x, u, v, g, r, y, z, whole, at, plane, GATED, weights); break;
    case Z | GATED: vectors(x, u, v, g, r, y, z, whole, at, plane, Z | GATED, weights); break;
    case LANES: vectors(x, u, v, g, r, y, z, whole, at, plane, LANES, weights); break;
    case LANES | Z: vectors(x, u, v, g, r, y, z, whole, at, plane, LANES | Z, weights); break;
    case LANES | GATED: vectors(x, u, v, g, r, y, z, whole, at, plane, LANES | GATED, weights); break;
    case LANES | Z | GATED: vectors(x, u, v, g, r, y, z, whole, at, plane, LANES | Z | GATED, weights); break;
  }
  const rest = length & 3, j = whole;
  if (rest == 0) return;
  const first = lanes ? at + j : at; // Whole vectors even at the end: a plane is a multiple of them.
  const xhat = f32x4.mul(f32x4.sub(loadRest(x + j, rest), coefficient(first, lanes)), coefficient(first + plane, lanes));
  const along = loadRest(u + j, rest);
  const a = coefficient(first + 2 * plane, lanes), b = coefficient(first + 3 * plane, lanes);
  const w = weights ? loadRest(weights + j, rest) : zeros();
  let level = madd(xhat, b, coefficient(first + 4 * plane, lanes));
  if (weights && !(kind & Z)) level = counted(f32x4.mul(level, w), w);
  let moved = madd(along, a, level);
  if (r) moved = f32x4.add(moved, loadRest(r + j, rest));
  storeRest(y + j, kind & GATED ? through(moved, loadRest(g + j, rest)) : moved, rest);
  if (!(kind & Z)) return;
  const dy = loadRest(v + j, rest);
  const term = kind & GATED ? through(dy, loadRest(g + j, rest)) : dy;
  const next = first + 5 * plane;
  const a2 = coefficient(next, lanes), b2 = coefficient(next + plane, lanes);
  const c2 = coefficient(next + 2 * plane, lanes), d2 = coefficient(next + 3 * plane, lanes);
  let behind = madd(along, a2, madd(xhat, c2, d2));
  if (weights) behind = counted(f32x4.mul(behind, w), w);
  storeRest(z + j, madd(term, b2, behind), rest);
}

/** A coefficient of a channel in all lanes, or those of four lanes. */
// @ts-ignore: decorator
@inline
function coefficient(at: usize, lanes: bool): v128 {
  return lanes ? v128.load(at) : v128.load32_splat(at);
}

/** Whole vectors. */
// @ts-ignore: decorator
@inline
function vectors(
  x: usize, u: usize, v: usize, g: usize, r: usize, y: usize, z: usize, size: usize, at: usize, plane: usize, kind: u32,
  weights: usize,
): void {
  let k = at;
  let hi = coefficient(k, false), s = coefficient(k += plane, false);
  let a = coefficient(k += plane, false), b = coefficient(k += plane, false), c = coefficient(k += plane, false);
  let a2 = kind & Z ? coefficient(k += plane, false) : a, b2 = kind & Z ? coefficient(k += plane, false) : a;
  let c2 = kind & Z ? coefficient(k += plane, false) : a, d2 = kind & Z ? coefficient(k += plane, false) : a;
  for (let j: usize = 0; j < size; j += 16) {
    if (kind & LANES) {
      k = at + j;
      hi = coefficient(k, true), s = coefficient(k += plane, true);
      a = coefficient(k += plane, true), b = coefficient(k += plane, true), c = coefficient(k += plane, true);
      if (kind & Z) {
        a2 = coefficient(k += plane, true), b2 = coefficient(k += plane, true);
        c2 = coefficient(k += plane, true), d2 = coefficient(k += plane, true);
      }
    }
    const xhat = f32x4.mul(f32x4.sub(v128.load(x + j), hi), s);
    const along = v128.load(u + j);
    const w = weights ? v128.load(weights + j) : zeros();
    let level = madd(xhat, b, c);
    if (weights && !(kind & Z)) level = counted(f32x4.mul(level, w), w);
    let moved = madd(along, a, level);
    if (r) moved = f32x4.add(moved, v128.load(r + j));
    if (kind & GATED) moved = through(moved, v128.load(g + j));
    v128.store(y + j, moved);
    if (kind & Z) {
      let behind = madd(along, a2, madd(xhat, c2, d2));
      if (weights) behind = counted(f32x4.mul(behind, w), w);
      v128.store(z + j, madd(kind & GATED ? through(v128.load(v + j), v128.load(g + j)) : v128.load(v + j), b2, behind));
    }
  }
}

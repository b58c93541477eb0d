// The gradient of the input where examples have weights, which scale its terms behind dy.

import { address, further, MOST, narrow, readable } from "./storage";
import { bytes, loadRest, madd, storeRest, through, zeros } from "./vectors";

/** Rows of a block of places that shares coefficients. */
const PLACES: u32 = 16;

/**
 * Computes samples, or places, [from, to) of dx, and with `passed` of the residual's gradient: scale * ((dy + w * offset)
 * + w * ((x - hi) * slope)), without what is behind dy where w is 0; where w is 1 it is what map.ts computes, to the last bit, as
 * long as nothing is fused. Coefficients are planes of float32 as map.ts has them; `scratch` has
 * room for 4 x MOST float32.
 */
export function mapWeighted(
  x: usize, dy: usize, output: usize, dx: usize, passed: usize, half: bool, last: bool, channels: u32, inner: u32,
  from: u32, to: u32, weights: usize, coefficients: usize, scratch: usize,
): void {
  const rows = last ? to - from : (to - from) * channels;
  const width = last ? channels : inner;
  const most = half ? MOST : width;
  const plane = bytes(channels), room = bytes(MOST);
  let first = from * (last ? channels : channels * inner);
  let by = weights + bytes(last ? from : from * inner);
  for (let row: u32 = 0, c: u32 = 0; row < rows;) {
    // Places share their channels' coefficients, as far as a block of them stays in the first cache.
    const height = last && !half ? min(rows - row, PLACES) : 1;
    for (let done: u32 = 0; done < width; done += most) {
      const length = min(width - done, most);
      const at = first + done;
      const g = readable(dy, at, length, half, scratch + room);
      const gate = output ? readable(output, at, length, half, scratch + 2 * room) : 0;
      const y = half ? scratch : address(dx, at, false);
      const through: usize = !passed ? <usize> 0 : half ? scratch + 3 * room : address(passed, at, false);
      const input = readable(x, at, length, half, scratch);
      if (last) places(input, g, gate, y, through, height, length, by, coefficients + bytes(done), plane);
      else run(input, g, gate, y, through, length, by + bytes(done), coefficients + bytes(c), plane);
      if (half) {
        narrow(y, address(dx, at, true), length);
        if (passed) narrow(through, address(passed, at, true), length);
      }
    }
    row += height;
    first += height * width;
    if (last) by += bytes(height);
    else if (++c == channels) {
      c = 0;
      by += bytes(inner);
    }
  }
}

/** One vector of dx, or its first elements, which memory ends with. */
// @ts-ignore: decorator
@inline
function step(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, h: v128, s: v128, o: v128, l: v128, w: v128, rest: u32,
): void {
  const whole = rest >= 4;
  let term = whole ? v128.load(g) : loadRest(g, rest);
  if (gate) term = through(term, whole ? v128.load(gate) : loadRest(gate, rest));
  const along = f32x4.mul(f32x4.sub(whole ? v128.load(x) : loadRest(x, rest), h), l);
  const moved = madd(along, w, madd(o, w, term));
  const result = f32x4.mul(v128.bitselect(moved, term, f32x4.gt(w, zeros())), s);
  if (whole) {
    v128.store(y, result);
    if (passed) v128.store(passed, term);
  } else {
    storeRest(y, result, rest);
    if (passed) storeRest(passed, term, rest);
  }
}

/** A run of one channel, whose elements have weights of their own. */
function run(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, length: u32, weights: usize, at: usize, plane: usize,
): void {
  const h = v128.load32_splat(at), s = v128.load32_splat(at + plane), o = v128.load32_splat(at + 2 * plane);
  const l = v128.load32_splat(at + 3 * plane);
  let j: usize = 0;
  const whole = bytes(length & ~3);
  if (!gate && !passed) {
    for (; j < whole; j += 16) step(x + j, g + j, 0, y + j, 0, h, s, o, l, v128.load(weights + j), 4);
  }
  for (; j < whole; j += 16) {
    step(x + j, g + j, further(gate, j), y + j, further(passed, j), h, s, o, l, v128.load(weights + j), 4);
  }
  const rest = length & 3;
  if (rest) step(x + j, g + j, further(gate, j), y + j, further(passed, j), h, s, o, l, loadRest(weights + j, rest), rest);
}

/** Places of as many channels, each with one weight: two vectors at a time, where there is nothing else to read or write. */
function places(
  x: usize, g: usize, gate: usize, y: usize, passed: usize, height: u32, channels: u32, weights: usize, at: usize,
  plane: usize,
): void {
  const stride = bytes(channels);
  let j: usize = 0;
  if (!gate && !passed) {
    for (const whole = stride & ~31; j < whole; j += 32) {
      const from = at + j, below = from + plane, third = below + plane, last = third + plane;
      const h0 = v128.load(from), s0 = v128.load(below), o0 = v128.load(third), l0 = v128.load(last);
      const h1 = v128.load(from, 16), s1 = v128.load(below, 16), o1 = v128.load(third, 16), l1 = v128.load(last, 16);
      let by = weights;
      for (let i = j, end = j + <usize> height * stride; i < end; i += stride, by += 4) {
        const w = v128.load32_splat(by);
        step(x + i, g + i, 0, y + i, 0, h0, s0, o0, l0, w, 4);
        step(x + i + 16, g + i + 16, 0, y + i + 16, 0, h1, s1, o1, l1, w, 4);
      }
    }
  }
  for (; j < stride; j += 16) {
    const h = v128.load(at + j), s = v128.load(at + plane + j), o = v128.load(at + 2 * plane + j);
    const l = v128.load(at + 3 * plane + j);
    const rest = channels - <u32> (j >> 2);
    let by = weights;
    for (let i = j, end = j + <usize> height * stride; i < end; i += stride, by += 4) {
      step(x + i, g + i, further(gate, i), y + i, further(passed, i), h, s, o, l, v128.load32_splat(by), rest);
    }
  }
}

// y where the elements of a channel lie side by side: a row is one channel of one sample.

import { one } from "./normalize";
import { address, MOST, narrow, readable } from "./storage";
import { bytes, loadRest, storeRest } from "./vectors";

/**
 * Normalizes elements [from, to) of a tensor (N, channels, inner). `residual` is 0 where nothing is added; y may be x;
 * `coefficients` are planes of `channels` float32: hi, scale, offset; `scratch` has room for 2 x MOST float32.
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

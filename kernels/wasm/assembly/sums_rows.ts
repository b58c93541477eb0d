// sum dy and sum dy * (x - mean) per channel where the elements of a channel lie side by side (channels first).
//
// Memory is walked once, in ascending order; sums stand in float32 lanes for a while, then in float64. dy counts as 0 where
// forward's output was not positive, if there was a ReLU.

import { wide } from "./pairs";
import { RECORD } from "./moments";
import { RUN } from "./moments_rows";
import { readable } from "./storage";
import { ChannelSums, settleSums } from "./sums";
import { bytes, gated, loadGated, loadRest, madd, zeros } from "./vectors";

/** Lanes are added once a channel has this many elements in them, or this many rows. */
const ENOUGH: u32 = 2048;
const ENOUGH_ROWS: u32 = 16;

/**
 * Gradient sums of elements [from, to) of tensors (N, channels, inner), per channel.
 *
 * @param x first byte of forward's input
 * @param dy first byte of the gradient of its output
 * @param output first byte of its output, where dy counts only if that is positive; 0 where dy always counts
 * @param half 1 for float16, 0 for float32
 * @param his means as float32, per channel
 * @param result planes of float64 per channel: sum of dy, of dy * (x - mean)
 * @param scratch room for a record per channel and 3 x RUN float32
 */
export function sumsOfRows(
  x: usize,
  dy: usize,
  output: usize,
  half: bool,
  channels: u32,
  inner: u32,
  from: u32,
  to: u32,
  his: usize,
  result: usize,
  scratch: usize,
): void {
  const records = scratch;
  const last = records + <usize> channels * RECORD;
  memory.fill(records, 0, last - records);
  for (let c: u32 = 0; c < channels; c++) {
    changetype<ChannelSums>(records + <usize> c * RECORD).shift = load<f32>(his + bytes(c));
  }
  if (from < to) addPart(x, dy, output, half, channels, inner, from, to, records, last);
  for (let c: u32 = 0; c < channels; c++) {
    const channel = changetype<ChannelSums>(records + <usize> c * RECORD);
    if (channel.pending > 0) settleSums(channel);
    store<f64>(wide(result, c), channel.dy);
    store<f64>(wide(result, channels + c), channel.products);
  }
}

/** Adds elements [from, to), row by row. */
function addPart(
  x: usize,
  dy: usize,
  output: usize,
  half: bool,
  channels: u32,
  inner: u32,
  from: u32,
  to: u32,
  records: usize,
  scratch: usize,
): void {
  const enough = min(ENOUGH, ENOUGH_ROWS * inner);
  const last = records + <usize> channels * RECORD;
  const row = from / inner;
  let rowEnd = (row + 1) * inner;
  let record = records + <usize> (row % channels) * RECORD;
  while (from < to) {
    const length = min(min(rowEnd, to) - from, RUN);
    const inputs = readable(x, from, length, half, scratch);
    const gradients = readable(dy, from, length, half, scratch + bytes(RUN));
    const channel = changetype<ChannelSums>(record);
    if (output) {
      const gates = readable(output, from, length, half, scratch + 2 * bytes(RUN));
      add(channel, inputs, gradients, gates, length, true);
    } else add(channel, inputs, gradients, 0, length, false);
    if (channel.pending >= enough) settleSums(channel);
    from += length;
    if (from == rowEnd) {
      rowEnd += inner;
      record += RECORD;
      if (record == last) record = records;
    }
  }
}

/** Adds a run to the lanes of its channel. */
// @ts-ignore: decorator
@inline
function add(channel: ChannelSums, x: usize, g: usize, gate: usize, length: u32, hasGate: bool): void {
  const shift = f32x4.splat(channel.shift);
  let s0 = zeros(), s1 = s0, s2 = s0, s3 = s0, q0 = s0, q1 = s0, q2 = s0, q3 = s0;
  const vectors = x + bytes(length & ~3);
  for (const end = x + bytes(length & ~15); x < end; x += 64, g += 64, gate += 64) {
    const g0 = loadGated(g, gate, hasGate);
    const g1 = loadGated(g + 16, gate + 16, hasGate);
    const g2 = loadGated(g + 32, gate + 32, hasGate);
    const g3 = loadGated(g + 48, gate + 48, hasGate);
    s0 = f32x4.add(s0, g0);
    q0 = madd(g0, f32x4.sub(v128.load(x), shift), q0);
    s1 = f32x4.add(s1, g1);
    q1 = madd(g1, f32x4.sub(v128.load(x, 16), shift), q1);
    s2 = f32x4.add(s2, g2);
    q2 = madd(g2, f32x4.sub(v128.load(x, 32), shift), q2);
    s3 = f32x4.add(s3, g3);
    q3 = madd(g3, f32x4.sub(v128.load(x, 48), shift), q3);
  }
  for (; x < vectors; x += 16, g += 16, gate += 16) {
    const gradient = loadGated(g, gate, hasGate);
    s0 = f32x4.add(s0, gradient);
    q0 = madd(gradient, f32x4.sub(v128.load(x), shift), q0);
  }
  const rest = length & 3;
  if (rest > 0) {
    // Lanes beyond the run hold a dy of 0 and an x of 0.
    const dy = loadRest(g, rest);
    const gradient = hasGate ? gated(dy, loadRest(gate, rest)) : dy;
    s1 = f32x4.add(s1, gradient);
    q1 = madd(gradient, f32x4.sub(loadRest(x, rest), shift), q1);
  }
  channel.dyLanes = f32x4.add(channel.dyLanes, f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  channel.productLanes = f32x4.add(
    channel.productLanes,
    f32x4.add(f32x4.add(q0, q1), f32x4.add(q2, q3)),
  );
  channel.pending += length;
}

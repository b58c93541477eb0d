// What a matrix's lanes sum in float64, where every lane always belongs to the same channel (reduce_columns.ts): tiles of rows are
// taken in, a last row that is not whole, and at the end the lanes of a channel become one.

import { wide } from "./pairs";
import { weightsAt } from "./places";
import { Channel, leave, merge, RECORD } from "./reduction";
import { valueAt } from "./storage";
import { bytes, passedOne } from "./vectors";

/** Adds the float32 sums of a tile to the float64 ones, lane by lane. */
export function addTile(period: u32, sums: usize, firsts: usize): void {
  const end = bytes(2 * period); // Products lie behind the sums in both.
  for (let j: usize = 0; j < end; j += 8) {
    const sum = f64x2.promote_low_f32x4(v128.load64_zero(sums + j));
    v128.store(firsts + 2 * j, f64x2.add(v128.load(firsts + 2 * j), sum));
  }
  memory.fill(sums, 0, end);
}

/** Merges the sums of `n` rows into the moments of the rows before, lane by lane. Inlined: as a call it made a small batch 7 to 12 % slower. */
// @ts-ignore: decorator
@inline
export function mergeTile(period: u32, before: f64, n: f64, shifts: usize, sums: usize, means: usize): void {
  const squares = sums + bytes(period);
  const m2s = means + 2 * bytes(period);
  const inverse = f64x2.splat(1 / n);
  const share = f64x2.splat(n / (before + n));
  const weight = f64x2.splat(before * (n / (before + n)));
  for (let j: usize = 0; j < bytes(period); j += 8) {
    const sum = f64x2.promote_low_f32x4(v128.load64_zero(sums + j));
    const offset = f64x2.mul(sum, inverse);
    const square = f64x2.promote_low_f32x4(v128.load64_zero(squares + j));
    // Rounding may leave a constant lane a little below 0; max() keeps NaN.
    const m2 = f64x2.max(f64x2.sub(square, f64x2.mul(sum, offset)), f64x2.splat(0));
    const mean = f64x2.add(f64x2.promote_low_f32x4(v128.load64_zero(shifts + j)), offset);
    const old = v128.load(means + 2 * j);
    const delta = f64x2.sub(mean, old);
    const merged = before == 0 ? mean : f64x2.add(old, f64x2.mul(delta, share));
    const between = f64x2.mul(f64x2.mul(delta, delta), weight);
    const spread = before == 0 ? m2 : f64x2.add(v128.load(m2s + 2 * j), f64x2.add(m2, between));
    v128.store(means + 2 * j, merged);
    v128.store(m2s + 2 * j, spread);
    v128.store64_lane(shifts + j, f32x4.demote_f64x2_zero(merged), 0);
  }
  memory.fill(sums, 0, 2 * bytes(period));
}

/** Adds the elements of a last row that is not whole. */
export function addPartialRow(
  x: usize, dy: usize, output: usize, half: bool, from: u32, lanes: u32, his: usize, dys: usize, period: u32,
  weights: usize, channels: u32, inner: u32,
): void {
  for (let j: u32 = 0; j < lanes; j++) {
    const weight = weights ? <f64> load<f32>(weightsAt(weights, from + j, 1, channels, inner, 0)) : 1;
    if (weight == 0) continue;
    const value = weight * valueAt(dy, from + j, half);
    const gradient = output ? passedOne(value, valueAt(output, from + j, half)) : value;
    if (gradient == 0) continue;
    const deviation = valueAt(x, from + j, half) - <f64> load<f32>(his + bytes(j));
    const sum = wide(dys, j), product = wide(sum, period);
    store<f64>(sum, load<f64>(sum) + gradient);
    store<f64>(product, load<f64>(product) + gradient * deviation);
  }
}

/** Merges the elements of a last row that is not whole, one value per lane. */
export function mergePartialRow(x: usize, half: bool, from: u32, lanes: u32, rows: f64, means: usize, period: u32): void {
  const share = 1 / (rows + 1);
  for (let j: u32 = 0; j < lanes; j++) {
    const value = valueAt(x, from + j, half);
    const to = wide(means, j), m2 = wide(to, period);
    const mean = load<f64>(to);
    const delta = value - mean;
    store<f64>(to, rows == 0 ? value : mean + delta * share);
    if (rows > 0) store<f64>(m2, load<f64>(m2) + delta * delta * (rows * share));
  }
}

/** Adds the lanes of every channel. */
export function addLanes(period: u32, dys: usize, channels: u32, inner: u32, result: usize): void {
  memory.fill(result, 0, wide(0, 2 * channels));
  let lane: u32 = 0;
  while (lane < period) {
    for (let c: u32 = 0; c < channels; c++) {
      const dy = wide(result, c), product = wide(dy, channels);
      for (let i: u32 = 0; i < inner; i++, lane++) {
        store<f64>(dy, load<f64>(dy) + load<f64>(wide(dys, lane)));
        store<f64>(product, load<f64>(product) + load<f64>(wide(dys, period + lane)));
      }
    }
  }
}

/** Merges the lanes of every channel, in a record for all of them in turn. The first lanes have one row more. */
export function mergeLanes(
  period: u32, rows: f64, more: u32, means: usize, channels: u32, inner: u32, record: usize, result: usize,
  counts: usize,
): void {
  const channel = changetype<Channel>(record);
  for (let c: u32 = 0; c < channels; c++) {
    memory.fill(record, 0, RECORD);
    for (let first = c * inner; first < period; first += channels * inner) {
      for (let lane = first; lane < first + inner; lane++) {
        merge(channel, lane < more ? rows + 1 : rows, load<f64>(wide(means, lane)), load<f64>(wide(means, period + lane)));
      }
    }
    leave(channel, channels, c, result, counts);
  }
}

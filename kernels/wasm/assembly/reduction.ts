// The one reduction there is: sums of g and of g * (x - shift) per channel. Moments are those of g = x - shift, and a shift near
// the mean; gradient sums those of dy behind its gate, and the mean as float32 for a shift.

import { wide } from "./pairs";
import { loadGated, total, zeros } from "./vectors";

/** What g is; known when a loop is compiled. The last is that of a gate with bounds (vectors.ts). */
export const MOMENTS: u32 = 0;
export const SUMS: u32 = 1;
export const GATED: u32 = 2;
export const BOUNDED: u32 = 3;

/** A vector of g. */
// @ts-ignore: decorator
@inline
export function term(deviation: v128, dy: usize, gate: usize, kind: u32): v128 {
  return kind == MOMENTS ? deviation : loadGated(dy, gate, kind != SUMS, kind == BOUNDED);
}

/** (mean, m2, count) or (sum dy, sum dy * (x - shift)) of one channel in float64, and sums in lanes that are still to be added. */
@unmanaged
export class Channel {
  first: f64;
  second: f64;
  count: f64;
  shift: f32;
  pending: u32;
  sum: v128;
  products: v128;
}

/** Bytes of a record: one cache line. */
export const RECORD: usize = 64;

// @ts-ignore: decorator
@inline
export function channelOf(records: usize, c: u32): Channel {
  return changetype<Channel>(records + <usize> c * RECORD);
}

/**
 * Merges (count, mean, m2) of another part (Chan, Golub and LeVeque 1979). An empty side changes nothing, not even the last
 * bit.
 */
export function merge(channel: Channel, count: f64, mean: f64, m2: f64): void {
  if (count == 0) return;
  if (channel.count == 0) {
    channel.count = count;
    channel.first = mean;
    channel.second = m2;
    return;
  }
  const both = channel.count + count;
  const share = count / both;
  const delta = mean - channel.first;
  channel.second += m2 + delta * delta * (channel.count * share);
  channel.first += delta * share;
  channel.count = both;
}

/** Takes what is pending: adds sums, or merges moments about the shift, of which the running mean becomes the next. */
export function settle(channel: Channel, isMoments: bool): void {
  const sum = total(channel.sum);
  const products = total(channel.products);
  if (isMoments) {
    const n = <f64> channel.pending;
    const offset = sum / n;
    // Rounding may leave a constant run a little below 0; max() keeps NaN.
    merge(channel, n, <f64> channel.shift + offset, max<f64>(products - sum * offset, 0));
    channel.shift = <f32> channel.first;
  } else {
    channel.first += sum;
    channel.second += products;
  }
  channel.pending = 0;
  channel.sum = zeros();
  channel.products = zeros();
}

/** Writes what is known of a channel to planes of float64: both numbers, and the count where there are any. */
export function leave(channel: Channel, channels: u32, c: u32, result: usize, counts: usize): void {
  store<f64>(wide(result, c), channel.first);
  store<f64>(wide(result, channels + c), channel.second);
  if (counts) store<f64>(wide(counts, c), channel.count);
}

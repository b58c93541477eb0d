// What is known of the moments of one channel, and Chan's formula, by which two parts of a batch become one.

import { wide } from "./pairs";
import { total, zeros } from "./vectors";

/** Moments of one channel in float64, and sums about a shift that are still to be merged into them. */
@unmanaged
export class ChannelMoments {
  mean: f64;
  m2: f64;
  count: f64;
  shift: f32;
  pending: u32;
  sum: v128;
  squares: v128;
}

/** Bytes of a record: one cache line. */
export const RECORD: usize = 64;

/**
 * Merges (count, mean, m2) of another part (Chan, Golub and LeVeque 1979). An empty side changes nothing, not even the last
 * bit.
 */
export function merge(channel: ChannelMoments, count: f64, mean: f64, m2: f64): void {
  if (count == 0) return;
  if (channel.count == 0) {
    channel.count = count;
    channel.mean = mean;
    channel.m2 = m2;
    return;
  }
  const both = channel.count + count;
  const share = count / both;
  const delta = mean - channel.mean;
  channel.m2 += m2 + delta * delta * (channel.count * share);
  channel.mean += delta * share;
  channel.count = both;
}

/** Merges what is pending: sums of n deviations from the shift, and of their squares. */
export function settle(channel: ChannelMoments): void {
  const n = <f64> channel.pending;
  const sum = total(channel.sum);
  const offset = sum / n;
  // Rounding may leave a constant run a little below 0; max() keeps NaN.
  const m2 = max<f64>(total(channel.squares) - sum * offset, 0);
  merge(channel, n, <f64> channel.shift + offset, m2);
  channel.shift = <f32> channel.mean;
  channel.pending = 0;
  channel.sum = zeros();
  channel.squares = zeros();
}

/** Writes what is known of a channel to planes of float64: mean and m2, and the count. */
export function leave(channel: ChannelMoments, channels: u32, c: u32, means: usize, counts: usize): void {
  store<f64>(wide(means, c), channel.mean);
  store<f64>(wide(means, channels + c), channel.m2);
  store<f64>(wide(counts, c), channel.count);
}

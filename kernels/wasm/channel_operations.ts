/**
 * Statistics and coefficients per channel, as operations on forward's and backward's way need them.
 *
 * @module
 */

import type { Statistics } from "../../lib/device.ts";
import { momentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import type { Layout } from "./layout.ts";
import type { Context } from "./context.ts";

/** Bytes of planes of numbers per channel. */
export function planes(count: number, channels: number, bytes: 4 | 8): number {
  return count * channels * bytes;
}

/** Addresses of (moments, running mean, running variance), as kernels take statistics: of either the first or the others. */
export function addressesOf(
  { statistic, vector }: Context,
  statistics: Statistics<WasmArray>,
  channels: number,
): readonly [number, number, number] {
  return statistics.source === "batch"
    ? [statistic(statistics.moments, momentsWire, channels), 0, 0]
    : [0, vector(statistics.mean, channels), vector(statistics.variance, channels)];
}

/** Numbers per lane of a layout: planes per channel, and where they are repeated for every lane of a row. */
export interface LaneRoom {
  readonly perChannel: number;
  readonly perLane: number;
}

/** Bytes that planes of float32 need per lane: none where channels and lanes are the same. */
export function laneBytes(count: number, { channels, period }: Layout): number {
  return period === null || period === channels ? 0 : planes(count, period, 4);
}

/** Repeats planes for every lane where lanes are not channels, and says where kernels shall read them. */
export function spread(
  { kernels }: Context,
  count: number,
  { channels, laneInner, period }: Layout,
  { perChannel, perLane }: LaneRoom,
): number {
  if (period === null || period === channels) return perChannel;
  kernels.spread(count, perChannel, channels, laneInner, period, perLane);
  return perLane;
}

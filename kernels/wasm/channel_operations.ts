/**
 * Statistics and coefficients per channel, as operations on forward's and backward's way need them.
 *
 * @module
 */

import type { Statistics } from "../../lib/device.ts";
import type { WasmArray } from "./arrays.ts";
import type { Layout } from "./layout.ts";
import type { Bench } from "./workbench.ts";

/** Bytes of planes of numbers per channel. */
export function planes(count: number, channels: number, bytes: 4 | 8): number {
  return count * channels * bytes;
}

/** Writes (mean, s) per channel, float64, to an address, and says of how many values they are. */
export function resolve(
  { arrays, address, kernels, memory }: Bench,
  statistics: Statistics<WasmArray>,
  channels: number,
  eps: number,
  to: number,
): number {
  if (statistics.source === "running") {
    const { mean, variance } = statistics;
    kernels.resolve(0, address(mean), address(variance), channels, eps, to);
    return 0;
  }
  const { address: moments } = arrays.slot(statistics.moments, "moments");
  kernels.resolve(moments, 0, 0, channels, eps, to);
  return new Float64Array(memory.buffer(), moments, 1)[0];
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
  { kernels }: Bench,
  count: number,
  { channels, laneInner, period }: Layout,
  { perChannel, perLane }: LaneRoom,
): number {
  if (period === null || period === channels) return perChannel;
  kernels.spread(count, perChannel, channels, laneInner, period, perLane);
  return perLane;
}

/** The two walks over tensors, on all threads: to numbers per channel, and to elements by coefficients of their channels. */

import type { Statistics } from "../../lib/device.ts";
import { momentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import { type Context, MOST } from "./context.ts";
import { inStrips, type Layout, type Part } from "./layout.ts";

/** What elements are: those of `assembly/formula.ts` that are the host's to choose. */
export const RELU = 16;
export const BACK = 32;

/** Bytes of a channel's record in scratch memory: the one of `assembly/reduction.ts`. */
const RECORD = 64;

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

/** Bytes that planes of float32 need per lane: none where channels and lanes are the same. */
export function laneBytes(count: number, { channels, period }: Layout): number {
  return period === channels ? 0 : planes(count, period, 4);
}

/** Repeats planes for every lane where lanes are not channels, and says where kernels shall read them. */
export function spread(
  { kernels }: Context,
  count: number,
  { channels, laneInner, period }: Layout,
  perChannel: number,
  perLane: number,
): number {
  if (period === 0 || period === channels) return perChannel;
  kernels.spread(count, perChannel, channels, laneInner, period, perLane);
  return perLane;
}

/** Bytes of scratch memory that a thread's part of a reduction takes. */
export function workBytes({ channels, period }: Layout): number {
  return (period === 0 ? channels * RECORD : planes(7, period, 4)) + planes(3, MOST, 4);
}

/**
 * Reduces (x, dy, output): to moments where dy is 0, else to gradient sums about means. `resultsOf` says where a thread leaves its
 * two planes, and the counts of moments.
 */
export function reduce(
  { run }: Context,
  layout: Layout,
  parts: readonly Part[],
  tensors: readonly [x: number, dy: number, output: number],
  his: number,
  work: number,
  resultsOf: (thread: number) => readonly [planes: number, counts: number],
): void {
  const { channels, half, laneInner, period } = layout;
  const strips = inStrips(layout, tensors[1] === 0 ? 1 : 2);
  const bytes = workBytes(layout);
  const given = [...tensors, half, strips, channels, laneInner, period];
  run("reduce", parts, ({ from, to }, thread) => {
    return [...given, from, to, his, ...resultsOf(thread), work + thread * bytes];
  });
}

/** Computes y, or dx and what passes to the residual, of (x, residual or dy, output) by so many planes of coefficients. */
export function map(
  context: Context,
  layout: Layout,
  tensors: readonly [x: number, g: number, output: number, y: number, passed: number],
  kind: number,
  count: 3 | 4,
  writeCoefficients: (perChannel: number) => void,
): void {
  const { channels, elements, half, laneInner, period } = layout;
  const parts = context.parts(elements, period || undefined);
  const scratchBytes = planes(4, MOST, 4);
  const [perChannel, perLane, scratch] = context.areas(
    planes(count, channels, 4),
    laneBytes(count, layout),
    half * scratchBytes * parts.length,
  );
  writeCoefficients(perChannel);
  const coefficients = spread(context, count, layout, perChannel, perLane);
  const given = [...tensors, half, inStrips(layout, count - 1), channels, laneInner, period];
  context.run("map", parts, ({ from, to }, thread) => {
    return [...given, from, to, coefficients, scratch + thread * scratchBytes, kind];
  });
}

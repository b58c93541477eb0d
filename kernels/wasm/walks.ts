/** The two walks over tensors, on all threads: to numbers per channel, and to elements by coefficients of their channels. */

import type { Statistics } from "../../lib/device.ts";
import { momentsWire, weightedMomentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import { type Context, type Kernels, MOST } from "./context.ts";
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

/** Address of moments, [count, mean C, m2 C]; weighted ones have a number before those. */
export function momentsAt(
  { arrays, statistic }: Context,
  array: WasmArray,
  channels: number,
): number {
  const { address, contents: { kind, length } } = arrays.look(array);
  const isWeighted = kind === weightedMomentsWire.name;
  const format = isWeighted ? weightedMomentsWire : momentsWire;
  if (kind !== format.name || length !== format.length(channels)) {
    statistic(array, format, channels); // It says what is wrong.
  }
  return isWeighted ? address + 8 : address;
}

/** Addresses of (moments, running mean, running variance), as kernels take statistics: of either the first or the others. */
export function addressesOf(
  context: Context,
  statistics: Statistics<WasmArray>,
  channels: number,
): readonly [number, number, number] {
  const { exact, vector } = context;
  return statistics.source === "batch"
    ? [(exact?.momentsAt ?? momentsAt)(context, statistics.moments, channels), 0, 0]
    : [0, vector(statistics.mean, channels), vector(statistics.variance, channels)];
}

/** Bytes that planes of float32 need per lane: none where channels and lanes are the same. */
export function laneBytes(count: number, { channels, period }: Layout): number {
  return period === channels ? 0 : planes(count, period, 4);
}

/** Repeats planes for every lane where lanes are not channels, and says where kernels shall read them. */
export function spread(
  kernels: Kernels,
  count: number,
  { channels, laneInner, period }: Layout,
  perChannel: number,
  perLane: number,
): number {
  if (period === 0 || period === channels) return perChannel;
  kernels.spread(count, perChannel, channels, laneInner, period, perLane);
  return perLane;
}

/** Float32 elements of a run of weights, and a vector more that rounds them to cache lines: of `assembly/reduce_columns.ts`. */
const WEIGHTS = 528;

/** Bytes of scratch memory that a thread's part of a reduction takes. */
export function workBytes({ channels, period }: Layout): number {
  const records = period === 0 ? channels * RECORD : planes(7, period, 4);
  return records + planes(3, MOST, 4) + planes(1, WEIGHTS, 4);
}

/**
 * Reduces (x, dy, output): to moments where dy is 0, else to gradient sums about means, of dy by weights where their address is not 0.
 * `resultsOf` says where a thread leaves its two planes, and the counts of moments.
 */
export function reduce(
  { run }: Context,
  layout: Layout,
  parts: readonly Part[],
  [x, dy, output]: readonly [number, number, number],
  his: number,
  work: number,
  resultsOf: (thread: number) => readonly [planes: number, counts: number],
  weights = 0,
): void {
  const { channels, half, laneInner: inner, period } = layout;
  const strips = inStrips(layout, dy === 0 ? 1 : 2);
  const bytes = workBytes(layout);
  run("reduce", parts, ({ from, to }, thread) => {
    const [sums, counts] = resultsOf(thread);
    const room = work + thread * bytes;
    // Without spreads, here and where kernels are called: they take as long as a small kernel.
    return [
      x,
      dy,
      output,
      half,
      strips,
      channels,
      inner,
      period,
      from,
      to,
      his,
      sums,
      counts,
      room,
      weights,
    ];
  });
}

/**
 * What a walk with so many planes of coefficients needs: its parts, where the coefficients of its lanes lie, and scratch memory
 * of so many bytes for each thread.
 */
export function prepare(
  { areas, kernels, parts: partsOf }: Context,
  layout: Layout,
  count: number,
  bytes: number,
  writeCoefficients: (kernels: Kernels, perChannel: number) => void,
) {
  const { channels, elements, period } = layout;
  const parts = partsOf(elements, period || undefined);
  const [perChannel, perLane, scratch] = areas(
    planes(count, channels, 4),
    laneBytes(count, layout),
    bytes * parts.length,
  );
  writeCoefficients(kernels, perChannel);
  const at = spread(kernels, count, layout, perChannel, perLane);
  return { parts, at, roomOf: (thread: number) => scratch + thread * bytes };
}

/** Computes y, or dx and what passes to the residual, of (x, residual or dy, output) by so many planes of coefficients. */
export function map(
  context: Context,
  layout: Layout,
  [x, g, gate, y, passed]: readonly [number, number, number, number, number],
  kind: number,
  count: 3 | 4,
  writeCoefficients: (kernels: Kernels, perChannel: number) => void,
): void {
  const { channels, half, laneInner: inner, period } = layout;
  const strips = inStrips(layout, count - 1);
  const { parts, at, roomOf } = prepare(
    context,
    layout,
    count,
    half * planes(4, MOST, 4),
    writeCoefficients,
  );
  context.run("map", parts, ({ from, to }, thread) => {
    const room = roomOf(thread);
    return [x, g, gate, y, passed, half, strips, channels, inner, period, from, to, at, room, kind];
  });
}

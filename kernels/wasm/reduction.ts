/**
 * The reduction over a tensor that moments and gradient sums are, on all threads.
 *
 * @module
 */

import { planes } from "./channel_operations.ts";
import { type Context, MOST } from "./context.ts";
import { inStrips, type Layout, type Part } from "./layout.ts";

/** Bytes of a channel's record in scratch memory: the one of `assembly/reduction.ts`. */
const RECORD = 64;

/** Bytes of scratch memory that a thread's part takes. */
export function workBytes({ channels, period }: Layout): number {
  return (period === null ? channels * RECORD : planes(7, period, 4)) + planes(3, MOST, 4);
}

/**
 * Reduces (x, dy, output, half): to moments where dy is 0, else to gradient sums about means. `resultsOf` says where a thread
 * leaves its two planes, and the counts of moments.
 */
export function reduce(
  context: Context,
  layout: Layout,
  parts: readonly Part[],
  tensors: readonly [x: number, dy: number, output: number, half: number],
  his: number,
  work: number,
  resultsOf: (thread: number) => readonly [planes: number, counts: number],
): void {
  const { channels, inner, laneInner, period } = layout;
  const [x, dy, output, half] = tensors;
  const strips = inStrips(layout, dy === 0 ? 1 : 2);
  const bytes = workBytes(layout);
  context.run("reduce", parts, ({ from, to }, thread) => {
    const [planes, counts] = resultsOf(thread);
    return [
      x,
      dy,
      output,
      half,
      strips,
      channels,
      period === null ? inner : laneInner,
      period ?? 0,
      from,
      to,
      his,
      planes,
      counts,
      work + thread * bytes,
    ];
  });
}

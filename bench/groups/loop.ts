/**
 * What every rank of an engine does when its all-reduce is timed: the loop of `raw_mpi.c`, in TypeScript.
 *
 * @module
 */

import { combineMoments, type ProcessGroup, sum } from "../../mod.ts";

/** What to time. */
export interface LoopOptions {
  /** Numbers of float64; odd for moments. */
  readonly lengths: readonly number[];
  readonly combine: "sum" | "combineMoments";
  /** Rounds of which the median counts. */
  readonly rounds: number;
  /** What a round takes at least, in ms. */
  readonly milliseconds: number;
}

/** How long one all-reduce takes on the slowest rank, in us. */
export interface LoopLine {
  readonly length: number;
  readonly median: number;
  readonly fastest: number;
}

const COMBINES = { sum, combineMoments };
const MOST_CALLS = 2 ** 20;

/**
 * Checks and times the all-reduce of a group, length by length.
 *
 * A round is a barrier and k calls in a row; its time is the slowest rank's, divided by k. k doubles until a round takes
 * long enough, which warms up too.
 *
 * @param group the ranks; all of them must call
 * @param options what to time
 * @returns a line per length, the same on every rank
 */
export async function loop(group: ProcessGroup, options: LoopOptions): Promise<LoopLine[]> {
  const lines: LoopLine[] = [];
  for (const length of options.lengths) lines.push(await time(group, length, options));
  return lines;
}

async function time(
  group: ProcessGroup,
  length: number,
  { combine, rounds, milliseconds }: LoopOptions,
): Promise<LoopLine> {
  const fold = COMBINES[combine];
  const local = contribution(group.rank, length);
  const total = await group.allReduce(local, fold);
  const all = Array.from({ length: group.worldSize }, (_, rank) => contribution(rank, length));
  const expected = all.reduce(fold);
  const wrong = total.findIndex((value, i) =>
    !(Math.abs(value - expected[i]) <= 1e-12 * Math.abs(expected[i]))
  );
  if (wrong >= 0) {
    throw new Error(
      `Cannot time a wrong total: element ${wrong} must be ${expected[wrong]}: ` +
        `current value is ${total[wrong]}`,
    );
  }
  const round = async (calls: number): Promise<number> => {
    await group.barrier();
    const start = performance.now();
    for (let i = 0; i < calls; i++) await group.allReduce(local, fold);
    const own = Float64Array.of(performance.now() - start);
    const times = await group.allGather(own);
    return Math.max(...times.map(([ms]) => ms));
  };
  let calls = 1;
  while (await round(calls) < milliseconds && calls < MOST_CALLS) calls *= 2;
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(1e3 * await round(calls) / calls);
  times.sort((a, b) => a - b);
  return { length, median: times[rounds >> 1], fastest: times[0] };
}

/** Moments of a rank's own: a count, means, sums of squares; any numbers where they are added. */
function contribution(rank: number, length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => i === 0 ? rank + 3 : (rank + 1) * (i + 1));
}

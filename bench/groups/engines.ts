/**
 * The process groups of this library, timed as their peers are: workers by each way to reach each other, MPI by each
 * library, with and without its agreement checks, awaited and holding up the thread; and one fold of each combine.
 */

import { combineMoments, type ProcessGroup, sum } from "../../mod.ts";
import { median, workTimes } from "../measure.ts";
import { mpi, type Runner, workers } from "../ranks.ts";
import {
  AGREEMENT_LENGTH,
  type Effort,
  foldSubject,
  type GroupRow,
  LENGTHS,
  type MissingPeer,
  nameOf,
} from "./measured.ts";

const COMBINES = { sum, combineMoments };
type Combine = keyof typeof COMBINES;
const MOST_CALLS = 2 ** 20;
const FOLD_ROUNDS = 9;

/** How a call is made: awaited, holding up the thread, or so with the total where the values were. */
type Way = "awaited" | "blocking" | "in place";

const ENGINES: Readonly<Record<string, { readonly run: Runner; readonly way?: Way }>> = {
  "workers, in place": { run: workers({ transport: "shared", wait: "block" }), way: "in place" },
  "workers, blocking": { run: workers({ transport: "shared", wait: "block" }), way: "blocking" },
  workers: { run: workers({ transport: "shared" }) },
  "workers over ports": { run: workers({ transport: "port" }) },
  "Open MPI, blocking": { run: mpi("openmpi"), way: "blocking" },
  "Open MPI": { run: mpi("openmpi") },
  "Open MPI, unchecked": { run: mpi("openmpi", false) },
  "MPICH, blocking": { run: mpi("mpich"), way: "blocking" },
  MPICH: { run: mpi("mpich") },
  "MPICH, unchecked": { run: mpi("mpich", false) },
};

/** Measures the engines, one after the other; a row per engine, combine, number of ranks and length. */
export async function measureEngines(
  worlds: readonly number[],
  effort: Effort,
): Promise<{ readonly rows: readonly GroupRow[]; readonly missing: readonly MissingPeer[] }> {
  const rows: GroupRow[] = [];
  const missing: MissingPeer[] = [];
  const task = { module: import.meta.url, name: "loop" };
  for (const [engine, { run, way = "awaited" }] of Object.entries(ENGINES)) {
    for (const ranks of worlds) {
      for (const combine of Object.keys(COMBINES) as Combine[]) {
        const subject = nameOf(engine, combine);
        try {
          const options = { combine, way, ...effort };
          const lines = await run<LoopOptions, readonly Line[]>(ranks, task, options);
          rows.push(...lines.map((line) => ({ subject, ranks, ...line })));
        } catch (error) {
          missing.push({ subject, ranks, missing: (error as Error).message });
        }
      }
    }
  }
  return { rows, missing };
}

/** Measures the library's combines; a row per combine and length. */
export async function measureFolds(): Promise<GroupRow[]> {
  const folds = LENGTHS.flatMap((length) => {
    const [a, b] = [1, 2].map((scale) => Float64Array.from({ length }, (_, i) => scale * (i + 1)));
    return [combineMoments, sum].map((combine) => ({
      row: { subject: foldSubject(combine.name), ranks: 1, length },
      run: () => combine(a, b),
    }));
  });
  const rounds: number[][] = [];
  for (let round = 0; round < FOLD_ROUNDS; round++) rounds.push(await workTimes(folds, 1));
  return folds.map(({ row }, i) => {
    const times = rounds.map((round) => Number((1e3 * round[i]).toFixed(4)));
    return { ...row, microseconds: { median: median(times), fastest: Math.min(...times) } };
  });
}

interface LoopOptions extends Effort {
  readonly combine: Combine;
  readonly way: Way;
}

type Line = Pick<GroupRow, "length" | "microseconds">;

/** What every rank does, as in `raw_mpi.c`: checks and times the all-reduce of a group, length by length. */
export async function loop(group: ProcessGroup, options: LoopOptions): Promise<readonly Line[]> {
  const lines: Line[] = [];
  for (const length of [AGREEMENT_LENGTH, ...LENGTHS]) {
    const moments = length % 2 === 1;
    if (moments || options.combine === "sum") lines.push(await time(group, length, options));
  }
  return lines;
}

/**
 * A round is a barrier and k calls in a row; its time is the slowest rank's, divided by k. k doubles until a round takes
 * long enough, which warms up too.
 */
async function time(
  group: ProcessGroup,
  length: number,
  { combine, way, rounds, milliseconds }: LoopOptions,
): Promise<Line> {
  const fold = COMBINES[combine];
  const local = contribution(group.rank, length);
  const room = new Float64Array(length);
  const inPlace = { inPlace: true };
  // As who computes values anew does, C's send buffer stands for that.
  const replace = () => (room.set(local), group.allReduceBlocking(room, fold, inPlace));
  const block = way === "in place" ? replace : () => group.allReduceBlocking(local, fold);
  const total = way === "awaited" ? await group.allReduce(local, fold) : block();
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
    if (way === "awaited") { for (let i = 0; i < calls; i++) await group.allReduce(local, fold); }
    else for (let i = 0; i < calls; i++) block();
    const times = await group.allGather(Float64Array.of(performance.now() - start));
    return Math.max(...times.map(([ms]) => ms));
  };
  let calls = 1;
  while (await round(calls) < milliseconds && calls < MOST_CALLS) calls *= 2;
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(1e3 * await round(calls) / calls);
  return { length, microseconds: { median: median(times), fastest: times[0] } };
}

/** Moments of a rank's own: a count, means, sums of squares; any numbers where they are added. */
function contribution(rank: number, length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => i === 0 ? rank + 3 : (rank + 1) * (i + 1));
}

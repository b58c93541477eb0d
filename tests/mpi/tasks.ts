/** What ranks do in MPI's own tests; each an export that closes over nothing. */

import {
  CollectiveError,
  type Combine,
  combineMoments,
  type ProcessGroup,
  sum,
} from "../../mod.ts";
import { type MpiGroup, mpiGroup } from "../../lib/groups/mpi.ts";
import type { Failure } from "../suites/groups.ts";

async function failureOf(body: () => Promise<unknown>): Promise<Failure> {
  try {
    await body();
  } catch (error) {
    const { name, message } = error as Error;
    if (!(error instanceof CollectiveError)) return { name, message };
    return { name, message, code: error.code, ranks: error.ranks };
  }
  throw new Error("the call succeeded");
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const one = () => Float64Array.of(1);

/** Composition of maps x -> a*x + b with small integers, pair by pair: exact, and different in every other order. */
const compose: Combine = function compose(a, b) {
  const composed = new Float64Array(a.length);
  for (let i = 0; i < a.length; i += 2) {
    composed[i] = a[i] * b[i];
    composed[i + 1] = a[i] * b[i + 1] + a[i + 1];
  }
  return composed;
};

/** Whether every number of ranks keeps to their order, at lengths that MPI would cut. */
export async function composeInOrder(group: ProcessGroup): Promise<boolean[]> {
  const kept: boolean[] = [];
  for (let ranks = 1; ranks <= group.worldSize; ranks++) {
    const part = await group.split(group.rank < ranks ? 0 : 1);
    for (const pairs of [1, 5, 4000, 40_000]) {
      const mapOf = (rank: number) =>
        Float64Array.from({ length: 2 * pairs }, (_, i) => i % 2 === 0 ? 2 : rank + 1 + i % 7);
      const total = await part.allReduce(mapOf(part.rank), compose);
      // x -> 2 x + (r + 1 + i % 7) of rank r, the last one first: each constant is doubled once for each rank before.
      const places = Array.from({ length: part.worldSize }, (_, rank) => rank);
      const slope = 2 ** part.worldSize;
      const constant = places.reduce((sum, rank) => sum + 2 ** rank * (rank + 1), 0);
      kept.push(
        total.every((value, i) =>
          value === (i % 2 === 0 ? slope : constant + (slope - 1) * (i % 7))
        ),
      );
    }
  }
  return kept;
}

/** Bits of moments of uneven ranks, hashed; they must not depend on the rank. */
export async function mergeSameBits(
  { rank, worldSize, allReduce }: ProcessGroup,
): Promise<number[]> {
  const bits: number[] = [];
  for (const channels of [1, 64, 4096, 40_000]) {
    const localOf = (rank: number) =>
      Float64Array.from(
        { length: 1 + 2 * channels },
        (_, i) => i === 0 ? 3 + rank : Math.sin(i + 10 * rank) ** 2,
      );
    const total = await allReduce(localOf(rank), combineMoments);
    const expected = combineMoments(localOf(0), localOf(1));
    if (worldSize === 2 && total.some((value, i) => value !== expected[i])) return [];
    const words = new Uint32Array(total.buffer);
    bits.push(words.reduce((hash, word) => Math.imul(hash ^ word, 0x01000193), 0));
  }
  return bits;
}

/** Several groups in flight at once, each with a function of its own. */
export async function crossGroups(group: ProcessGroup): Promise<number[][]> {
  const [rows, columns] = await Promise.all([
    group.split(Math.floor(group.rank / 2)),
    group.split(group.rank % 2),
  ]);
  const biggest: Combine = (a, b) => a.map((value, i) => Math.max(value, b[i]));
  const smallest: Combine = (a, b) => a.map((value, i) => Math.min(value, b[i]));
  const own = Float64Array.of(group.rank);
  const results: number[][] = [];
  for (let i = 0; i < 50; i++) {
    const all = await Promise.all([
      rows.allReduce(own, biggest),
      columns.allReduce(own, smallest),
      group.allReduce(own, sum),
      group.allReduce(own, compose.length === 2 ? biggest : sum),
    ]);
    results.push(all.map(([value]) => value));
  }
  return results;
}

/** A combine that throws on one rank alone. */
export async function combineUnevenly(group: ProcessGroup): Promise<[Failure, number]> {
  const { rank, allReduce } = group;
  const uneven: Combine = function uneven(a) {
    if (rank === 0) throw new Error("only here");
    return a;
  };
  const failure = await failureOf(() => allReduce(one(), uneven));
  const [total] = await allReduce(one(), sum);
  return [failure, total];
}

/** Labels that differ only behind what a message holds. */
export async function disagreeAtLength({ rank, allReduce }: ProcessGroup): Promise<Failure> {
  const label = "x".repeat(5000) + rank % 2;
  return await failureOf(() => allReduce(one(), sum, { label }));
}

/** All ranks cancel at the same time. */
export async function cancelTogether({ rank, allReduce }: ProcessGroup): Promise<Failure[]> {
  const signal = AbortSignal.timeout(50);
  const never = new Promise<Float64Array>(() => {});
  return [
    await failureOf(() => allReduce(rank === 0 ? never : one(), sum, { signal })),
    await failureOf(() => allReduce(one(), sum)),
  ];
}

/** A signal while the group is being split; the time it takes on all ranks. */
export async function cancelSplit(group: ProcessGroup): Promise<Failure> {
  const controller = new AbortController();
  if (group.rank === 0) setTimeout(() => controller.abort(new Error("enough")), 20);
  if (group.rank === 1) await pause(60);
  return await failureOf(() => group.split(0, 0, { signal: controller.signal }));
}

/** A sub-group breaks: its parent goes on, but cannot be closed. */
export async function breakSubGroup(group: ProcessGroup): Promise<[Failure, number, Failure]> {
  const pair = await group.split(Math.floor(group.rank / 2));
  const signal = group.rank === 0 ? AbortSignal.abort(new Error("enough")) : undefined;
  const failure = await failureOf(async () => {
    if (group.rank < 2) return await pair.barrier({ signal });
    throw new Error("intact");
  });
  const [total] = await group.allReduce(one(), sum);
  const refusal = group.rank < 2
    ? await failureOf((group as MpiGroup).close)
    : { name: "", message: "" };
  return [failure, total, refusal];
}

/** How long after the deadline each rank rejects, in ms; rank 1 comes late. */
export async function measureDeadline(
  { rank, barrier }: ProcessGroup,
  ms: number,
): Promise<number> {
  const start = performance.now();
  if (rank === 1) await pause(2 * ms);
  await failureOf(() => barrier());
  return performance.now() - start - ms;
}

/** What is refused, and what is left after the end. */
export async function endTwice(group: ProcessGroup): Promise<string[]> {
  const { close, abort, allReduce } = group as MpiGroup;
  const messages: string[] = [];
  const note = async (body: () => unknown) => {
    try {
      await body();
      messages.push("no error");
    } catch (error) {
      messages.push(`${(error as Error).name}: ${(error as Error).message}`);
    }
  };
  await note(() => mpiGroup());
  await note(() => abort(0));
  const values = pause(50).then(one);
  const pending = allReduce(values, sum);
  await note(close);
  await pending;
  return messages;
}

/** A rank's own failure without agreement. */
export async function failUnchecked({ rank, allReduce }: ProcessGroup): Promise<Failure[]> {
  const local = rank === 1 ? Promise.reject(new TypeError("no batch")) : one();
  return [
    await failureOf(() => allReduce(local, sum, { label: "forward" })),
    await failureOf(() => allReduce(one(), sum)),
  ];
}

/** All collectives without agreement. */
export async function workUnchecked(group: ProcessGroup): Promise<number[]> {
  const { rank, worldSize } = group;
  const [total] = await group.allReduce(Float64Array.of(rank), sum);
  const [count, mean] = await group.allReduce(Float64Array.of(1, rank, 0), combineMoments);
  const all = await group.allGather(Float64Array.of(rank));
  const [sent] = await group.broadcast(Float64Array.of(rank), worldSize - 1);
  await group.barrier();
  const half = await group.split(rank % 2);
  const [inHalf] = await half.allReduce(Float64Array.of(1), sum);
  return [total, count, mean, all.length, sent, inHalf];
}

export async function throwUnchecked({ allReduce }: ProcessGroup): Promise<Failure> {
  const bad: Combine = () => {
    throw new Error("cannot add");
  };
  return await failureOf(() => allReduce(one(), bad));
}

function busy(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end;);
}

/** One rank's function has the name of the library's. */
export async function disguise({ rank, allReduce }: ProcessGroup): Promise<[Failure, number]> {
  // Who makes one file of many modules may have renamed the library's own.
  const mine: Combine = Object.defineProperty((a, b) => sum(a, b), "name", { value: sum.name });
  const failure = await failureOf(() => allReduce(one(), rank === 1 ? mine : sum));
  return [failure, (await allReduce(one(), sum))[0]];
}

/** Labels that differ only in what does not show. */
export async function labelInvisibly({ rank, barrier, allReduce }: ProcessGroup) {
  const failure = await failureOf(() => barrier({ label: rank === 1 ? "\ud800" : "\ud801" }));
  return [failure.code, (await allReduce(one(), sum))[0]];
}

/** Rank 1 works in slices while others come well before the deadline; what all get. */
export async function workInSlices(group: ProcessGroup, how: "sum" | "split"): Promise<string> {
  const part = await group.split(0);
  await group.barrier();
  if (group.rank !== 1) await pause(120);
  let done = false;
  const slice = () => {
    if (done) return;
    busy(100);
    setImmediate(slice);
  };
  const result: Promise<unknown> = how === "sum" ? part.allReduce(one(), sum) : part.split(0);
  if (group.rank === 1) slice();
  return await result.then(() => "ok", (error) => error.message).finally(() => done = true);
}

/** The rank that leads the settlement is busy in it; rank 3 comes late. */
export async function leadBusily({ rank, barrier, allReduce }: ProcessGroup): Promise<Failure> {
  await barrier();
  if (rank === 0) setTimeout(() => busy(900), 500);
  if (rank === 3) await pause(3500);
  return await failureOf(() => allReduce(one(), sum));
}

/** A long message, while another rank is late. */
export async function failAtLength({ rank, allReduce }: ProcessGroup): Promise<Failure> {
  if (rank === 2) await pause(1500);
  const values = rank === 1 ? Promise.reject(new Error("\u0001".repeat(5000))) : one();
  return await failureOf(() => allReduce(values, sum));
}

/** Splits of two groups, in another order on each rank: one deadline, and no process that is stuck. */
export async function splitCrosswise(group: ProcessGroup): Promise<string[]> {
  const twin = await group.split(0);
  const both = group.rank === 0 ? [group, twin] : [twin, group];
  const settled = await Promise.allSettled(both.map(({ split }) => split(0)));
  return settled.map(({ status }) => status);
}

/** What ranks do with arrays so long that they fold in turn; each an export that closes over nothing. */

import {
  CollectiveError,
  type Combine,
  combineMoments,
  type ProcessGroup,
  sum,
} from "../../mod.ts";
import type { Failure } from "../suites/groups.ts";

const LENGTH = 70_000;

async function failureOf(body: () => unknown): Promise<Failure> {
  try {
    await body();
  } catch (error) {
    const { name, message } = error as Error;
    if (!(error instanceof CollectiveError)) return { name, message };
    return { name, message, code: error.code, ranks: error.ranks };
  }
  throw new Error("the call succeeded");
}

const busy = (ms: number) => {
  for (const end = performance.now() + ms; performance.now() < end;);
};

/** Each element is what the one at the other end was in the array before: nothing that could be cut. */
const turned: Combine = function turned(a, b) {
  return a.toReversed().map((value, i) => 2 * value + b[i]);
};

/** Totals of awaited calls and of such that hold up the thread, and whether they are what folding here gives. */
export async function foldInTurn(group: ProcessGroup): Promise<boolean[]> {
  const { rank, worldSize, allReduce, allReduceBlocking } = group;
  const localOf = (rank: number) => Float64Array.from({ length: LENGTH }, (_, i) => (i + rank) % 5);
  const momentsOf = (rank: number) =>
    Float64Array.from(
      { length: LENGTH + 1 },
      (_, i) => i === 0 ? 3 + rank : Math.sin(i + rank) ** 2,
    );
  const scratch = new Float64Array(LENGTH);
  const combines: readonly Combine[] = [
    turned,
    combineMoments,
    (a) => a,
    (_a, b) => b,
    (a, b) => {
      scratch.set(turned(a, b));
      return scratch;
    },
    // Whatever becomes of its arguments, the arrays of the caller stay.
    (a, b) => {
      const total = turned(a, b);
      a.fill(NaN);
      b.fill(NaN);
      return total;
    },
  ];
  const right: boolean[] = [];
  for (const combine of combines) {
    const arrayOf = combine === combineMoments ? momentsOf : localOf;
    const own = arrayOf(rank);
    const [first, ...others] = Array.from({ length: worldSize }, (_, other) => arrayOf(other));
    const expected = others.reduce<Float64Array>((a, b) => combine(a, b).slice(), first);
    const awaited = allReduce(own, combine);
    own.fill(-1); // The call has a copy.
    for (const total of [await awaited, allReduceBlocking(arrayOf(rank), combine)]) {
      right.push(total.length === expected.length && total.every((x, i) => x === expected[i]));
      scratch.fill(-1); // The total is the caller's own.
      right.push(total.every((x, i) => x === expected[i]));
    }
    right.push(own.every((value) => value === -1));
  }
  return right;
}

/** A function that fails on one rank alone: what it threw, what it should not have returned; and the sum after each. */
export async function foldUnevenly(group: ProcessGroup): Promise<[Failure, number][]> {
  const { rank, allReduce, allReduceBlocking } = group;
  const own = new Float64Array(LENGTH).fill(1);
  const throwing: Combine = function throwing(a) {
    if (rank === 2) throw new Error("only here");
    if (rank === 3) throw new Error("not a total");
    return a;
  };
  const cutting: Combine = function cutting(a) {
    return rank === 3 ? a.subarray(1) : a;
  };
  const odd: Combine = combineMoments;
  const results: [Failure, number][] = [];
  for (const combine of [throwing, cutting, odd]) {
    for (const reduce of [allReduce, allReduceBlocking]) {
      const failure = await failureOf(() => reduce(own, combine));
      results.push([failure, (await allReduce(own, sum))[LENGTH - 1]]);
    }
  }
  return results;
}

/** Rank 1 takes its time to fold, until rank 3, which waits for its turn, gives up. */
export async function cancelInTurn(group: ProcessGroup): Promise<Failure> {
  const { rank, barrier, allReduce } = group;
  const slow: Combine = function slow(a) {
    if (rank === 1) busy(1000);
    return a;
  };
  await barrier();
  const signal = rank === 3 ? AbortSignal.timeout(300) : undefined;
  return await failureOf(() => allReduce(new Float64Array(LENGTH), slow, { signal }));
}

/** Rank 1 takes longer to fold than the deadline allows. */
export async function foldLate(group: ProcessGroup): Promise<Failure> {
  const { rank, allReduce } = group;
  const late: Combine = function late(a) {
    if (rank === 1) busy(2500);
    return a;
  };
  return await failureOf(() => allReduce(new Float64Array(LENGTH), late));
}

/** Two groups in flight at once, in which the ranks have other neighbours. */
export async function foldCrosswise(group: ProcessGroup): Promise<boolean> {
  const { rank, worldSize, split } = group;
  const back = await split(0, -rank);
  const own = new Float64Array(LENGTH).fill(rank);
  const [there, here] = await Promise.all([
    group.allReduce(own, turned),
    back.allReduce(own, turned),
  ]);
  const fold = (ranks: number[]) => ranks.reduce((total, other) => 2 * total + other);
  const ranks = Array.from({ length: worldSize }, (_, other) => other);
  return there.every((value) => value === fold(ranks)) &&
    here.every((value) => value === fold(ranks.toReversed()));
}

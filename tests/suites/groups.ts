/** What every process group must do. Each rank's part is an export that closes over nothing, so it can run anywhere. */

import assert from "node:assert/strict";
import {
  CollectiveError,
  type Combine,
  combineMoments,
  type ProcessGroup,
  sum,
} from "../../mod.ts";
import { assertClose, type GroupKit, type RankTask, register } from "../kit.ts";
import { normalArray } from "../random.ts";

/** A rejection as plain data. */
export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly ranks?: readonly number[];
}

/** The error that a promise rejects with, as plain data. */
async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    const { name, message } = error as Error;
    if (!(error instanceof CollectiveError)) return { name, message };
    return { name, message, code: error.code, ranks: error.ranks };
  }
  throw new Error("the call succeeded");
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const later = async <T>(value: T, ms: number) => (await pause(ms), value);

/** Composition of maps x -> a*x + b: associative, and different in every other order. */
const compose: Combine = function compose([a, b], [c, d]) {
  return Float64Array.of(a * c, a * d + b);
};

export async function foldInRankOrder({ rank, allReduce }: ProcessGroup): Promise<number[]> {
  return [...await allReduce(Float64Array.of(rank + 2, rank + 1), compose)];
}

export async function sumSameBits({ rank, allReduce }: ProcessGroup): Promise<number[]> {
  return [...await allReduce(Float64Array.from(normalArray(1000, rank)), sum, { label: "bits" })];
}

/** The larger of each two; declared to be cut, and failing where rank 2's part of long arrays begins, if at all. */
const larger: Combine = Object.assign(
  function larger(a: Float64Array, b: Float64Array): Float64Array {
    return a.map((value, i) => {
      if (value === 1313) throw new Error("an unlucky number");
      return Math.max(value, b[i]);
    });
  },
  { elementwise: true } as const,
);

/** Arrays of several lengths, by functions that may be cut and that may not, and a failure of each kind in between. */
export async function reduceLengths(
  { rank, worldSize, allReduce }: ProcessGroup,
): Promise<number[][]> {
  const kept: number[][] = [];
  const whole: Combine = function whole(a, b) {
    // Each element knows the others: composed maps, and the number of elements.
    return a.map((_, i) => i % 2 === 0 ? a[i] * b[i] : a[i - 1] * b[i] + a[i] + 0 * a.length);
  };
  for (const length of [1, 2, 3, 8, 21]) {
    const own = Float64Array.from({ length }, (_, i) => 0.1 * (rank + 1) + i);
    const total = await allReduce(own, sum);
    const most = await allReduce(own.map((value) => value * (-1) ** rank), larger);
    const unlucky = Float64Array.from({ length: 2 * length }, (_, i) => {
      return rank === worldSize - 2 && i === 2 * length - 1 ? 1313 : 0;
    });
    const failure = await failureOf(allReduce(unlucky, larger));
    const maps = await allReduce(
      Float64Array.from({ length: 2 * length }, (_, i) => rank + 1 + i),
      whole,
    );
    const failed = await failureOf(allReduce(unlucky, (a, b) => {
      if (b[b.length - 1] === 1313) throw new Error("an unlucky number");
      return a.map((value, i) => value + b[i]);
    }));
    const isUnlucky = ({ message, code }: Failure) =>
      Number(code === "rankFailed" && /combining failed: an unlucky number/.test(message));
    kept.push([...total], [...most], [...maps], [isUnlucky(failure), isUnlucky(failed)]);
  }
  return kept;
}

/** Totals in place of what was brought, awaited one by one and two at once, of a promise, blocking, and on one rank not in place. */
export async function reduceInPlace(
  { rank, allReduce, allReduceBlocking }: ProcessGroup,
  blocks: boolean,
): Promise<[boolean[], Failure, number]> {
  const halve: Combine = function halve(a, b) {
    return a.map((value, i) => value / 2 + b[i]);
  };
  const kept: boolean[] = [];
  // Each rank once in place and once not, whichever operand of a fold it is.
  for (const [length, outside] of [[1, 0], [1, 1], [1, 2], [21, 0], [21, 1], [21, 2]]) {
    const inPlace = { inPlace: rank !== outside };
    for (const combine of [sum, combineMoments, halve]) {
      const brought = (): Float64Array =>
        Float64Array.of(4, ...normalArray(length, rank), ...new Float64Array(length).fill(rank));
      const expected = await allReduce(brought(), combine);
      const [alone, first, second, promised, now, made] = Array.from({ length: 6 }, brought);
      const totals = [
        [alone, await allReduce(alone, combine, inPlace)],
        ...(await Promise.all([first, second].map(async (own) => [
          own,
          await allReduce(own, combine, inPlace),
        ]))),
        [promised, await allReduce(later(promised, 1), combine, inPlace)],
      ];
      if (blocks) {
        totals.push([now, allReduceBlocking(now, combine, inPlace)]);
        totals.push([made, allReduceBlocking(() => made, combine, inPlace)]);
      }
      kept.push(...totals.map(([own, total]) =>
        (own === total) === inPlace.inPlace &&
        total.length === expected.length && total.every((value, i) => value === expected[i])
      ));
    }
  }
  const wrong = rank === 1 ? { inPlace: 1 as never } : undefined;
  const failure = await failureOf(allReduce(Float64Array.of(1), sum, wrong));
  const [total] = await allReduce(Float64Array.of(1), sum);
  return [kept, failure, total];
}

/** Calls without end, none of which waits for long, until a timer has come on every rank. */
export async function hearTimers({ worldSize, allReduce }: ProcessGroup): Promise<boolean> {
  let heard = 0;
  setTimeout(() => heard = 1, 1);
  for (let call = 0; call < 100_000; call++) {
    const [all] = await allReduce(Float64Array.of(heard), sum);
    if (all === worldSize) return true;
  }
  return false;
}

/** Functions of one name, of which only rank 1's is declared to be cut. */
export async function declareUnlike({ rank, allReduce }: ProcessGroup): Promise<[Failure, number]> {
  const add: Combine = (a, b) => a.map((value, i) => value + b[i]);
  const own = rank === 1 ? Object.assign(add, { elementwise: true } as const) : add;
  const failure = await failureOf(allReduce(new Float64Array(5), own));
  const [total] = await allReduce(Float64Array.of(1), sum);
  return [failure, total];
}

/** A name and a label that are no texts, and an error without one. */
export async function sayOddly(
  { rank, allReduce }: ProcessGroup,
): Promise<[Failure, number, number]> {
  const odd = Object.defineProperty(new Error(), "message", {
    get: () => {
      throw new Error("no text");
    },
  });
  const values = rank === 1 ? Promise.reject(odd) : Float64Array.of(1);
  const failure = await failureOf(allReduce(values, sum));
  const [labelled] = await allReduce(Float64Array.of(1), sum, { label: Symbol("odd") as never });
  const [total] = await allReduce(Float64Array.of(1), sum);
  return [failure, labelled, total];
}

/** What a call that holds up the thread throws, as plain data. */
function thrownBy(call: () => unknown): Promise<Failure> {
  return failureOf(Promise.resolve().then(call));
}

/** The same reductions, awaited and blocking, and in every mixture of both. */
export async function reduceBlocking(group: ProcessGroup): Promise<number[][]> {
  const { rank, allReduce, allReduceBlocking } = group;
  const kept: number[][] = [];
  for (const length of [1, 3, 1000]) {
    const own = Float64Array.from(normalArray(length, rank));
    const moments = Float64Array.of(rank, ...Float64Array.from({ length: 2 * length }, () => rank));
    const awaited = [await allReduce(own, sum), await allReduce(moments, combineMoments)];
    const local = own.slice();
    const total = allReduceBlocking(local, sum, { label: "now" });
    if (total.buffer === local.buffer || local.some((value, i) => value !== own[i])) return [];
    const blocking = [total, allReduceBlocking(moments, combineMoments)];
    const mixed = rank === 1
      ? allReduceBlocking(own, sum, { label: "mixed" })
      : await allReduce(own, sum, { label: "mixed" });
    kept.push(...[...awaited, ...blocking, mixed].map((values) => [...values]));
  }
  // In sub-groups too.
  const pair = await group.split(rank % 2);
  kept.push([group.allReduceBlocking(Float64Array.of(rank), sum)[0]]);
  kept.push([pair.allReduceBlocking(Float64Array.of(1), sum)[0] / pair.worldSize]);
  return kept;
}

/** Failures in turn, each followed by a sum that must work, and at last a rank that comes late. */
export async function failBlocking(group: ProcessGroup): Promise<(Failure | number)[]> {
  const { rank, allReduceBlocking } = group;
  const odd = rank === 1;
  const one = Float64Array.of(1);
  const disagreement = await thrownBy(() => allReduceBlocking(new Float64Array(odd ? 5 : 3), sum));
  const rubbish = await thrownBy(() => allReduceBlocking(odd ? [1] as never : one, sum));
  const combining = await thrownBy(() =>
    allReduceBlocking(one, () => {
      throw new Error("cannot add");
    })
  );
  // While a call is under way, which the others have not made yet, its rank must not be held up: each is early once.
  let busy: Failure | undefined;
  for (let early = 0; early < group.worldSize; early++) {
    if (rank !== early) await pause(100);
    const pending = group.barrier();
    if (rank === early) busy = await thrownBy(() => allReduceBlocking(one, sum));
    await pending;
  }
  const [total] = allReduceBlocking(one, sum);
  if (odd) await pause(1000);
  const late = await thrownBy(() => allReduceBlocking(one, sum, { label: "forward" }));
  const after = await failureOf(group.allReduce(one, sum));
  return [disagreement, rubbish, combining, busy!, total, late, after];
}

export async function refuseToBlock({ allReduceBlocking }: ProcessGroup): Promise<Failure> {
  return await thrownBy(() => allReduceBlocking(Float64Array.of(1), sum));
}

export async function mergeWithEmpty({ rank, allReduce }: ProcessGroup): Promise<number[]> {
  const local = rank === 1 ? [0, 0, 0] : [1, 0.1 * (rank + 1), 0];
  return [...await allReduce(Float64Array.from(local), combineMoments)];
}

export async function keepArguments({ rank, allReduce }: ProcessGroup): Promise<number[]> {
  // Long enough to travel in pieces where a kit's pieces are small.
  const local = Float64Array.of(1, 2, 3, 4, 5);
  const pending = allReduce(local, sum);
  local.fill(100);
  const total = await pending;
  // By a promise, and written to while the call still waits for the others.
  const promised = Float64Array.of(1, 2, 3, 4, 5);
  if (rank !== 0) await pause(60);
  const second = allReduce(Promise.resolve(promised), sum);
  await pause(20);
  promised.fill(100);
  if ((await second).some((value, i) => value !== total[i])) throw new Error("another total");
  const received = [...total];
  total.fill(rank);
  await allReduce(Float64Array.of(1), sum);
  const mine = [...total].every((value) => value === rank) ? 1 : 0;
  return [...received, ...local, mine];
}

export async function overlap({ rank, allReduce }: ProcessGroup): Promise<number[]> {
  const calls = [30, 0, 10].map((ms, i) => {
    const local = Float64Array.of(100 * i + rank);
    return allReduce(rank === 0 ? later(local, ms) : local, sum, { label: `layer ${i}` });
  });
  return (await Promise.all(calls)).map(([total]) => total);
}

export async function gatherAndBroadcast(group: ProcessGroup): Promise<number[][]> {
  const { rank } = group;
  const all = await group.allGather(Float64Array.of(rank, rank * rank));
  const roots = await group.broadcast(Float64Array.of(rank, 7 * rank), 1);
  await group.barrier({ label: "end" });
  return [...all.map((values) => [...values]), [...roots]];
}

export async function badRoot(group: ProcessGroup): Promise<Failure> {
  return await failureOf(group.broadcast(Float64Array.of(1), group.worldSize));
}

export async function splitTwice(group: ProcessGroup): Promise<number[]> {
  // The even and the odd ranks apart, in reverse order; then those in pairs.
  const half = await group.split(group.rank % 2, -group.rank);
  const pair = await half.split(Math.floor(half.rank / 2));
  const one = Float64Array.of(group.rank);
  const [inHalf] = await half.allReduce(one, sum);
  const [inPair] = await pair.allReduce(one, sum);
  const [inAll] = await group.allReduce(one, sum);
  return [half.rank, half.worldSize, inHalf, pair.rank, pair.worldSize, inPair, inAll];
}

/** Failures in turn, each followed by a sum that must work. */
export async function disagree(group: ProcessGroup, what: string): Promise<[Failure, number]> {
  const odd = group.rank === 1;
  const local = new Float64Array(odd && what === "length" ? 5 : 3);
  const combine = odd && what === "operation" ? combineMoments : sum;
  const label = odd && what === "channels" ? "forward C=5 float32" : "forward C=4 float32";
  const call = odd && what === "kind"
    ? group.barrier({ label })
    : group.allReduce(local, combine, { label });
  const failure = await failureOf(call);
  const [total] = await group.allReduce(Float64Array.of(1), sum);
  return [failure, total];
}

export async function skipLayer(group: ProcessGroup): Promise<Failure> {
  if (group.rank !== 1) {
    await group.allReduce(Float64Array.of(1), sum, { label: "a" }).catch(() => 0);
  }
  return await failureOf(group.allReduce(Float64Array.of(1), sum, { label: "b" }));
}

export async function failBefore({ rank, allReduce }: ProcessGroup): Promise<[Failure, number]> {
  const local = rank === 2
    ? Promise.reject(new TypeError("Cannot normalize the batch"))
    : Float64Array.of(1);
  const failure = await failureOf(allReduce(local, sum, { label: rank === 2 ? "?" : "forward" }));
  const [total] = await allReduce(Float64Array.of(1), sum);
  return [failure, total];
}

export async function failTogether({ rank, allReduce }: ProcessGroup): Promise<Failure> {
  const local = rank === 1 ? Float64Array.of(1) : Promise.reject(new Error(`rank ${rank}'s own`));
  return await failureOf(allReduce(local, sum, { label: "forward" }));
}

export async function bringRubbish(group: ProcessGroup, what: string): Promise<[Failure, number]> {
  const { rank, allReduce } = group;
  const rubbish: Record<string, unknown> = {
    "a Float32Array": Float32Array.of(1),
    "a promise of nothing": Promise.resolve(undefined),
    "a rejection without a text": Promise.reject(Object.create(null)),
  };
  (rubbish["a rejection without a text"] as Promise<never>).catch(() => {});
  const local = rank === 1 ? rubbish[what] as Float64Array : Float64Array.of(1);
  const failure = await failureOf(allReduce(local, sum));
  const [total] = await allReduce(Float64Array.of(1), sum);
  return [failure, total];
}

export async function passNoSignal(group: ProcessGroup): Promise<[Failure, number]> {
  const { rank, allReduce } = group;
  const options = rank === 1 ? { signal: {} as AbortSignal } : {};
  const failure = await failureOf(allReduce(Float64Array.of(1), sum, options));
  const [total] = await allReduce(Float64Array.of(1), sum, null as never);
  return [failure, total];
}

export async function combineBadly({ allReduce }: ProcessGroup, how: string): Promise<Failure> {
  const ways: Record<string, unknown> = {
    throws: () => {
      throw new Error("cannot add");
    },
    "returns a plain array": ([a]: number[], [b]: number[]) => [a + b],
    "returns another length": () => new Float64Array(3),
  };
  return await failureOf(allReduce(Float64Array.of(1, 2), ways[how] as Combine));
}

export async function failBehind({ rank, allReduce }: ProcessGroup): Promise<[number, Failure]> {
  const one = Float64Array.of(1);
  const slow = allReduce(rank === 0 ? later(one, 20) : one, sum);
  const behind = allReduce(rank === 0 ? Promise.reject(new Error("at once")) : one, sum);
  const failure = failureOf(behind);
  const [total] = await slow;
  return [total, await failure];
}

export async function shareNothing(
  { rank, allGather, broadcast }: ProcessGroup,
): Promise<number[]> {
  const gathered = await allGather(Float64Array.of(5));
  const sent = await broadcast(Float64Array.of(6), 0);
  for (const values of [...gathered, sent]) values.fill(rank);
  const again = await allGather(Float64Array.of(5));
  return [...gathered, sent].map(([value]) => value - rank).concat(again.map(([value]) => value));
}

export async function misuse(group: ProcessGroup, what: "root" | "color"): Promise<Failure> {
  const odd = group.rank === 1;
  return await failureOf(
    what === "root" ? group.broadcast(Float64Array.of(1), odd ? 1 : 0) : group.split(odd ? NaN : 0),
  );
}

export async function comeLate({ rank, allReduce }: ProcessGroup, ms: number): Promise<Failure[]> {
  if (rank === 1) await pause(ms);
  const call = () => failureOf(allReduce(Float64Array.of(1), sum, { label: "forward" }));
  return [await call(), await call()];
}

export async function neverReady({ rank, allReduce }: ProcessGroup): Promise<Failure> {
  const local = rank === 1 ? new Promise<Float64Array>(() => {}) : Float64Array.of(1);
  return await failureOf(allReduce(local, sum, { label: "forward" }));
}

export async function cancel(
  { rank, allReduce }: ProcessGroup,
  when: "before" | "during",
): Promise<Failure[]> {
  const controller = new AbortController();
  if (when === "before") controller.abort(new Error("user left"));
  // In "during" another rank stays away, so that the call is under way when the signal fires.
  else setTimeout(() => controller.abort(new Error("user left")), 20);
  if (when === "during" && rank === 1) await pause(300);
  const options = rank === 0 ? { signal: controller.signal } : {};
  const first = await failureOf(allReduce(Float64Array.of(1), sum, options));
  return [first, await failureOf(allReduce(Float64Array.of(1), sum))];
}

export async function unusedSignal({ rank, allReduce }: ProcessGroup): Promise<number> {
  const controller = new AbortController();
  const one = Float64Array.of(1);
  await allReduce(one, sum, rank === 0 ? { signal: controller.signal } : {});
  controller.abort();
  const [total] = await allReduce(one, sum);
  return total;
}

export async function alone(group: ProcessGroup): Promise<number[]> {
  const total = await group.allReduce(Float64Array.of(3), sum);
  const [gathered] = await group.allGather(Float64Array.of(4));
  const { worldSize } = await group.split(5);
  return [...total, ...gathered, worldSize];
}

/** Registers everything that a kind of group must do. */
export function groupSuite(kit: GroupKit): void {
  function test<P, R>(
    name: string,
    worldSize: number,
    body: RankTask<P, R>["body"],
    parameter: P,
    check: (results: R[]) => void,
    timeoutMs?: number,
  ): void {
    const task = { module: import.meta.url, name: body.name, body };
    register(kit, name, async () => {
      check(await kit.run(worldSize, task, parameter, timeoutMs ? { timeoutMs } : undefined));
    });
  }
  const same = <T>(results: readonly T[]): T => {
    for (const result of results) assert.deepEqual(result, results[0], "equal on every rank");
    return results[0];
  };

  test("allReduce() folds in rank order", 4, foldInRankOrder, null, (results) => {
    const maps: Float64Array[] = [[2, 1], [3, 2], [4, 3], [5, 4]].map((map) =>
      Float64Array.from(map)
    );
    const expected = maps
      .reduce((a, b) => compose(a, b));
    assert.deepEqual(same(results), [...expected]);
  });
  test("allReduce() gives the same bits to every rank", 5, sumSameBits, null, (results) => {
    const locals: Float64Array[] = [0, 1, 2, 3, 4].map((rank) =>
      Float64Array.from(normalArray(1000, rank))
    );
    const [total, expected] = [same(results), [...locals.reduce((a, b) => sum(a, b))]];
    if (kit.foldsInOrder !== false) return assert.deepEqual(total, expected);
    // Four additions, each half a unit in the last place of sums that are below 16.
    assertClose(total, expected, { absolute: 4 * 2 ** -50, relative: 0 }, "sum");
  });
  test(
    "a total in place is where the values were",
    3,
    reduceInPlace,
    kit.blocks ?? false,
    (results) => {
      const [kept, failure, total] = same(results);
      assert.deepEqual([kept.length, kept.every(Boolean)], [kit.blocks ? 108 : 72, true]);
      assert.deepEqual([failure.code, failure.ranks, total], ["rankFailed", [1], 3]);
      assert.match(failure.message, /inPlace must be true, false or left out: current value is 1/);
    },
  );
  test("timers come to ranks that never wait for long", 2, hearTimers, null, (results) => {
    assert(same(results));
  });
  test("arrays of any length are reduced in rank order, by any function", 3, reduceLengths, null, (
    results,
  ) => {
    const kept = same(results);
    [1, 2, 3, 8, 21].forEach((length, at) => {
      const [total, most, maps, failures] = kept.slice(4 * at, 4 * at + 4);
      const own = [0, 1, 2].map((rank) =>
        Float64Array.from({ length }, (_, i) => 0.1 * (rank + 1) + i)
      );
      const expected = sum(sum(own[0], own[1]), own[2]);
      if (kit.foldsInOrder !== false) assert.deepEqual(total, [...expected]);
      else assertClose(total, expected, { absolute: 2 ** -47, relative: 0 }, "sum");
      assert.deepEqual(most, [...own[2]].map((value, i) => Math.max(own[0][i], value)));
      // Small integers, exact in whatever order; the maps compose as (a, b) then (c, d).
      const map = [0, 1, 2].map((rank) =>
        Array.from({ length: 2 * length }, (_, i) => rank + 1 + i)
      );
      const composed = map.reduce((a, b) =>
        a.map((_, i) => i % 2 === 0 ? a[i] * b[i] : a[i - 1] * b[i] + a[i])
      );
      assert.deepEqual(maps, composed);
      assert.deepEqual(failures, [1, 1]);
    });
  });
  test(
    "what is declared of a function must be the same on all",
    3,
    declareUnlike,
    null,
    (results) => {
      const [failure, total] = same(results);
      assert.deepEqual([failure.code, total], ["disagreement", 3]);
      assert.match(failure.message, /rank 1 (called|made) .*\(elementwise\)/);
    },
  );
  test("whatever has no text is said all the same", 2, sayOddly, null, (results) => {
    const [failure, labelled, total] = same(results);
    assert.deepEqual([failure.code, failure.ranks, labelled, total], ["rankFailed", [1], 2, 2]);
    assert.match(failure.message, /an object without a text/);
  });
  test("allReduce() merges moments past an empty rank", 3, mergeWithEmpty, null, (results) => {
    const [count, mean, m2] = same(results);
    assert.equal(count, 2);
    assert.ok(Math.abs(mean - 0.2) < 1e-15 && Math.abs(m2 - 0.02) < 1e-15);
  });
  test("allReduce() neither shares nor keeps arrays", 3, keepArguments, null, (results) => {
    assert.deepEqual(same(results), [3, 6, 9, 12, 15, 100, 100, 100, 100, 100, 1]);
  });
  test("calls in flight stay in program order", 2, overlap, null, (results) => {
    assert.deepEqual(same(results), [1, 201, 401]);
  });
  for (const what of ["channels", "length", "operation"]) {
    test(`ranks that disagree in ${what} all get the error`, 3, disagree, what, (results) => {
      const [failure, total] = same(results);
      assert.deepEqual([failure.code, failure.ranks, total], ["disagreement", [0, 1, 2], 3]);
      assert.match(failure.message, /disagree.*rank.*forward C=4 float32.*rank 1/);
    });
  }
  test("a rank that fails before its call fails all, once", 3, failBefore, null, (results) => {
    const [failure, total] = same(results);
    assert.deepEqual([failure.code, failure.ranks, total], ["rankFailed", [2], 3]);
    assert.match(failure.message, /Rank 2 failed before call 1.*Cannot normalize the batch/);
  });
  test("ranks that fail together are all named", 3, failTogether, null, (results) => {
    const failure = same(results);
    assert.deepEqual([failure.code, failure.ranks], ["rankFailed", [0, 2]]);
    assert.match(failure.message, /rank 0's own.*rank 2's own/);
  });
  for (const what of ["a Float32Array", "a promise of nothing", "a rejection without a text"]) {
    test(`${what} is its rank's failure on all`, 3, bringRubbish, what, (results) => {
      const [failure, total] = same(results);
      assert.deepEqual([failure.code, failure.ranks, total], ["rankFailed", [1], 3]);
      assert.match(failure.message, /must be a Float64Array|without a text/);
    });
  }
  if (!kit.reduceOnly) {
    test(
      "a signal that is none is its rank's failure on all",
      3,
      passNoSignal,
      null,
      (results) => {
        const [failure, total] = same(results);
        assert.deepEqual([failure.code, failure.ranks, total], ["rankFailed", [1], 3]);
        assert.match(failure.message, /signal must be an AbortSignal/);
      },
    );
  }
  for (const how of ["throws", "returns a plain array", "returns another length"]) {
    test(`a combine that ${how} is an error on every rank`, 2, combineBadly, how, (results) => {
      assert.match(same(results).message, /cannot add|must return a Float64Array of 2 values/);
    });
  }
  test("a failure behind a slow call waits for its turn", 2, failBehind, null, (results) => {
    const [total, failure] = same(results);
    assert.deepEqual([total, failure.code, failure.ranks], [2, "rankFailed", [0]]);
    assert.match(failure.message, /call 2.*at once/);
  });
  const isLate = (failure: Failure) => {
    assert.deepEqual([failure.code, failure.ranks], ["deadline", [1]]);
    assert.match(failure.message, /rank 1 did not arrive within 400 ms/);
  };
  test("a rank past the deadline is named, then all refuse", 3, comeLate, 1000, (results) => {
    isLate(same(results.flat()));
  }, 400);
  test("a signal during a call gives up the group", 3, cancel, "during", (results) => {
    const failure = same(results.flat());
    assert.deepEqual([failure.code, failure.ranks], ["cancelled", [0]]);
    assert.match(failure.message, /rank 0 cancelled it: user left/);
  });
  test("a signal before a call gives up the group", 2, cancel, "before", (results) => {
    const failure = same(results.flat());
    assert.deepEqual([failure.code, failure.ranks], ["cancelled", [0]]);
  });
  test("a signal after its call does nothing", 2, unusedSignal, null, (results) => {
    assert.equal(same(results), 2);
  });
  if (kit.reduceOnly) return;

  if (kit.blocks) {
    test(
      "allReduceBlocking() gives the bits of allReduce()",
      4,
      reduceBlocking,
      null,
      (results) => {
        const kept = same(results);
        for (let i = 0; i < 15; i += 5) {
          const [total, moments, ...others] = kept.slice(i, i + 5);
          assert.deepEqual(others, [total, moments, total]);
        }
        assert.deepEqual(kept.slice(15), [[6], [1]]);
      },
    );
    test("allReduceBlocking() fails as allReduce() does", 3, failBlocking, null, (results) => {
      const [disagreement, rubbish, combining, busy, total, late, after] = same(results);
      const checks = [
        [disagreement, "disagreement", /disagree: ranks 0, 2 called .*rank 1 called/],
        [rubbish, "rankFailed", /Rank 1 failed before call 2.*must be a Float64Array/],
        [combining, "rankFailed", /call 3.*combining failed: cannot add/],
        [busy, undefined, /^Cannot hold up the thread in allReduce as no awaited call/],
        [late, "deadline", /call 8, allReduce "forward", as rank 1 did not arrive within 400 ms/],
        [after, "deadline", /call 8/],
      ] as const;
      for (const [failure, code, pattern] of checks) {
        assert(typeof failure === "object");
        assert.equal(failure.code, code);
        assert.match(failure.message, pattern);
      }
      assert.equal(total, 3);
    }, 400);
  } else {
    test("allReduceBlocking() is refused where ranks cannot wait so", 2, refuseToBlock, null, (
      results,
    ) => {
      const { name, message } = same(results);
      assert.equal(name, "TypeError");
      assert.match(message, /^Cannot hold up the thread in allReduce as /);
    });
  }

  test(
    "allGather(), broadcast() and barrier() do theirs",
    3,
    gatherAndBroadcast,
    null,
    (results) => {
      assert.deepEqual(same(results), [[0, 0], [1, 1], [2, 4], [1, 7]]);
    },
  );
  test("broadcast() refuses a root that is no rank", 2, badRoot, null, (results) => {
    const failure = same(results);
    assert.equal(failure.code, "rankFailed");
    assert.match(failure.message, /root must be a rank below 2: current value is 2/);
  });
  test("allGather() and broadcast() share no arrays", 3, shareNothing, null, (results) => {
    assert.deepEqual(same(results), [0, 0, 0, 0, 5, 5, 5]);
  });
  test("ranks that name different roots all get the error", 2, misuse, "root", (results) => {
    assert.match(same(results).message, /disagree.*from rank 0.*from rank 1/);
  });
  test("a color that is no number is its rank's failure", 2, misuse, "color", (results) => {
    assert.match(same(results).message, /Rank 1 failed.*color and key must be finite.*NaN/);
  });
  test("split() makes groups of a color, ordered by key", 8, splitTwice, null, (results) => {
    // Even ranks in reverse: 6 4 2 0, in pairs 6+4 and 2+0; odd ones: 7 5 3 1, 7+5 and 3+1.
    assert.deepEqual(results[6], [0, 4, 12, 0, 2, 10, 28]);
    assert.deepEqual(results[0], [3, 4, 12, 1, 2, 2, 28]);
    assert.deepEqual(results[5], [1, 4, 16, 1, 2, 12, 28]);
    assert.deepEqual(results[3], [2, 4, 16, 0, 2, 4, 28]);
  });
  test(
    "ranks that call different collectives all get the error",
    3,
    disagree,
    "kind",
    (results) => {
      const [failure, total] = same(results);
      assert.deepEqual([failure.code, total], ["disagreement", 3]);
      assert.match(failure.message, /ranks 0, 2 called allReduce.*rank 1 called barrier/);
    },
  );
  test("a layer that one rank skips is an error, not a hang", 2, skipLayer, null, ([a, b]) => {
    assert.match(a.message, /call 2.*rank 1 (ended|did not arrive)|Rank 1/);
    assert.match(b.message, /call 1.*disagree.*"a".*"b"/);
  }, 400);
  test("values that never become ready are named", 3, neverReady, null, (results) => {
    const failure = same(results);
    assert.deepEqual([failure.code, failure.ranks], ["deadline", [1]]);
    assert.match(failure.message, /the values of rank 1 were not ready within 400 ms/);
  }, 400);
  test("a group of one works", 1, alone, null, (results) => {
    assert.deepEqual(results, [[3, 4, 1]]);
  });
}

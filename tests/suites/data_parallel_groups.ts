/**
 * Data parallelism over any kind of group, and ranks that run out of batches. Each rank's part is an export that closes
 * over nothing, so it can run anywhere.
 */

import assert from "node:assert/strict";
import {
  allReduceGradients,
  assertReplicated,
  broadcastState,
  initBatchNorm,
  joinUneven,
  lossScale,
  type ProcessGroup,
  referenceDevice,
  stateToHost,
  sum,
  withParameters,
} from "../../mod.ts";
import {
  bitsOf,
  checkTraining,
  type Failure,
  failureOf,
  failureOnAll,
  ODD_BITS,
  ofBits,
  range,
  same,
  train,
  TRAINING,
  type Training,
} from "../data_parallel.ts";
import { type GroupKit, type RankTask, register } from "../kit.ts";

export async function trainOverGroup(group: ProcessGroup, training: Training): Promise<number[][]> {
  return await train(referenceDevice(), training, group);
}

export async function reduceInBuckets(group: ProcessGroup): Promise<number[]> {
  const device = referenceDevice();
  const tree = { a: device.upload(Float32Array.of(1, 2, 3)), b: device.upload(Float32Array.of(4)) };
  const effects = { device, group };
  const [one, three] = await Promise.all(
    [1, 3].map((buckets) => allReduceGradients(tree, effects, { buckets, average: false })),
  );
  return [
    ...await device.download(one.a),
    ...await device.download(one.b),
    ...await device.download(three.a),
    ...await device.download(three.b),
  ];
}

export async function reduceOtherTrees(group: ProcessGroup): Promise<Failure> {
  const device = referenceDevice();
  const values = new Float32Array(group.rank === 1 ? 3 : 2);
  const effects = { device, group };
  return await failureOnAll(
    group,
    allReduceGradients({ a: device.upload(values) }, effects, { buckets: 2 }),
  );
}

export async function reduceFreed(group: ProcessGroup): Promise<Failure> {
  const device = referenceDevice();
  const a = device.upload(Float32Array.of(1));
  if (group.rank === 1) device.free(a);
  return await failureOnAll(group, allReduceGradients({ a }, { device, group }, { buckets: 2 }));
}

export async function shareState(group: ProcessGroup): Promise<number[]> {
  const device = referenceDevice();
  const state = initBatchNorm(device, 6, { eps: group.rank });
  const root = group.worldSize - 1;
  const own = group.rank === root
    ? withParameters(state, { weight: device.upload(ofBits(...ODD_BITS)) })
    : state;
  const shared = await broadcastState(own, { device, group }, { root });
  await assertReplicated(shared, { device, group });
  const { weight, eps } = await stateToHost(device, shared);
  assert(weight !== null);
  return [eps, ...bitsOf(weight.slice())];
}

export async function compareStates(group: ProcessGroup): Promise<Failure> {
  const device = referenceDevice();
  const values = new Float32Array(1000);
  if (group.rank === 1) values[700] = -0;
  const tree = { weight: device.upload(values) };
  return await failureOnAll(group, assertReplicated(tree, { device, group }));
}

export async function scaleLosses(
  group: ProcessGroup,
  counts: readonly number[],
): Promise<number | Failure> {
  const call = lossScale(counts[group.rank], group);
  return counts.includes(-1) ? await failureOnAll(group, call) : await call;
}

/** How a rank's batches end. */
export interface Ending {
  readonly batches: readonly number[];
  readonly whenOut: "stop" | "shadow";
  readonly throws?: number;
}

/** Every step as [batch, active], and the failure at the end; asynchronous batches on odd ranks. */
export async function stepThrough(
  group: ProcessGroup,
  { batches, whenOut, throws }: Ending,
): Promise<
  { readonly steps: number[][]; readonly failure: Failure | null; readonly closed: boolean }
> {
  let closed = false;
  const source = function* () {
    try {
      for (let i = 0; i < batches[group.rank]; i++) yield i;
      if (group.rank === throws) throw new Error("the disk is full");
    } finally {
      closed = true;
    }
  };
  const later = async function* () {
    yield* source();
  };
  const steps: number[][] = [];
  const walk = async () => {
    const own = group.rank % 2 === 1 ? later() : source();
    const options = whenOut === "stop"
      ? { whenOut } as const
      : { whenOut, emptyBatch: () => -1 } as const;
    for await (const { batch, active, shadow } of joinUneven<number>(own, group, options)) {
      assert.equal(shadow, batch === -1);
      // What a step is for: something that every rank must take part in.
      await group.barrier({ label: "step" });
      steps.push([batch, active]);
    }
  };
  const failure = whenOut === "shadow" && throws === undefined
    ? (await walk(), null)
    : await failureOnAll(group, walk());
  return { steps, failure, closed };
}

export async function chooseOtherwise(group: ProcessGroup): Promise<Failure> {
  const options = group.rank === 0
    ? { whenOut: "stop" } as const
    : { whenOut: "shadow", emptyBatch: () => 0 } as const;
  return await failureOnAll(group, joinUneven([1], group, options).next());
}

export async function joinBadly(group: ProcessGroup, what: string): Promise<Failure> {
  const odd = group.rank === 1;
  const batches = odd && what === "batches" ? 5 as never : [1];
  const options = {
    whenOut: odd && what === "whenOut" ? "later" : what === "emptyBatch" ? "shadow" : "stop",
    ...(!odd && { emptyBatch: () => 0 }),
  };
  return await failureOnAll(group, joinUneven(batches, group, options as never).next());
}

export async function leaveTogether(group: ProcessGroup): Promise<readonly [number, boolean]> {
  let closed = false;
  const source = async function* () {
    try {
      for (let i = 0;; i++) yield i;
    } finally {
      closed = true;
    }
  };
  for await (const { batch } of joinUneven(source(), group)) {
    if (batch === 3) break;
  }
  const [ranks] = await group.allReduce(Float64Array.of(1), sum);
  return [ranks, closed];
}

export async function leaveAlone(group: ProcessGroup): Promise<Failure | null> {
  const walk = async () => {
    for await (const { batch } of joinUneven([0, 1, 2, 3], group)) {
      if (batch === 1 && group.rank === 1) break;
    }
  };
  if (group.rank !== 1) return await failureOf(walk());
  await walk();
  await group.barrier({ label: "epilogue" }).catch(() => {});
  return null;
}

export async function waitForBatches(group: ProcessGroup): Promise<[Failure, number]> {
  let closed = 0;
  const stuck = {
    next: () => new Promise<never>(() => {}),
    return: () => {
      closed++;
      return new Promise<never>(() => {});
    },
  };
  const batches = group.rank === 1 ? { [Symbol.asyncIterator]: () => stuck } : [1];
  return [await failureOf(joinUneven(batches, group).next()), closed];
}

/** Batches that must be asked neither after their end nor after a failure, and that fail to close. */
export async function askCarefully(
  group: ProcessGroup,
  what: "end" | "failure",
): Promise<[Failure, number]> {
  let [asked, closed] = [0, 0];
  const iterator = {
    next: () => {
      if (++asked === 2 && what === "failure") throw new Error("the disk is full");
      if (asked > 2) throw new Error("asked after the end");
      return { done: asked > 1, value: asked };
    },
    return: () => {
      closed++;
      throw new Error("cannot close");
    },
  };
  const own = { [Symbol.iterator]: () => iterator } as Iterable<number>;
  const batches = group.rank === 0 ? own : [1, 2, 3, 4];
  const options = { whenOut: "shadow", emptyBatch: () => 0 } as const;
  if (what === "failure") {
    const walk = async () => {
      for await (const _ of joinUneven(batches, group, options));
    };
    return [await failureOnAll(group, walk()), closed];
  }
  for await (const _ of joinUneven(batches, group, options));
  const stop = async () => {
    // Here rank 0 is the one that has more, and whose batches fail to close.
    for await (const _ of joinUneven(group.rank === 0 ? own : [], group));
  };
  asked = -2;
  return [await failureOnAll(group, stop()), closed];
}

/** Registers the tests of data parallelism for a kind of group, each rank with a reference device of its own. */
export function dataParallelOverGroup(kit: GroupKit): void {
  function test<P, R>(
    name: string,
    worldSize: number,
    body: RankTask<P, R>["body"],
    parameter: P,
    check: (results: R[]) => void | Promise<void>,
    timeoutMs = 20_000,
  ): void {
    const task = { module: import.meta.url, name: body.name, body };
    register(kit, name, async () => {
      await check(await kit.run(worldSize, task, parameter, { timeoutMs }));
    });
  }

  test(
    "averaged gradients of uneven and used-up ranks train as one process",
    3,
    trainOverGroup,
    TRAINING,
    (ranks) => checkTraining(1, ranks),
  );
  test(
    "gradients of several trees and buckets keep their order",
    3,
    reduceInBuckets,
    null,
    (ranks) => {
      assert.deepEqual(same(ranks), [3, 6, 9, 12, 3, 6, 9, 12]);
    },
  );
  test("trees of another structure are a disagreement on all", 3, reduceOtherTrees, null, (all) => {
    const { code, message } = same(all);
    assert.equal(code, "disagreement");
    assert.match(message, /1 arrays of 2 values.*1 arrays of 3 values/);
  });
  test("a freed gradient is its rank's failure on all", 3, reduceFreed, null, (all) => {
    const { code, ranks, message } = same(all);
    assert.deepEqual([code, ranks], ["rankFailed", [1]]);
    assert.match(message, /Cannot reduce the gradients with a: .*freed/);
  });
  test("broadcastState() carries NaN, -0 and options from any root", 3, shareState, null, (all) => {
    assert.deepEqual(same(all), [2, ...ODD_BITS]);
  });
  test("assertReplicated() tells -0 from 0 on all ranks", 3, compareStates, null, (all) => {
    const { code, ranks, message } = same(all);
    assert.deepEqual([code, ranks], ["disagreement", [1]]);
    assert.match(
      message,
      /current weight\[700\] is 0 \(0x00000000\) on rank 0 and -0 \(0x80000000\)/,
    );
  });
  test("lossScale() weighs ranks by their examples", 3, scaleLosses, [3, 0, 6], (all) => {
    assert.deepEqual(all, [1, 0, 2]);
  });
  test("lossScale() is 0 where nobody has examples", 2, scaleLosses, [0, 0], (all) => {
    assert.deepEqual(all, [0, 0]);
  });
  test("a wrong count is its rank's failure on all", 2, scaleLosses, [3, -1], (all) => {
    const { code, ranks, message } = same(all) as Failure;
    assert.deepEqual([code, ranks], ["rankFailed", [1]]);
    assert.match(message, /localCount must be an integer >= 0: current value is -1/);
  });

  const eleven: Ending = { batches: [10, 5, 10], whenOut: "stop" };
  test(
    "PyTorch test 11: uneven steps are an error on all at the shorter end",
    3,
    stepThrough,
    eleven,
    (all) => {
      const { code, ranks, message } = same(all.map(({ failure }) => failure)) ?? assert.fail();
      assert.deepEqual([code, ranks], ["disagreement", [1]]);
      assert.match(message, /after step 5 as .*: rank 1 ran out, ranks 0, 2 did not/);
      for (const { steps, closed } of all) {
        assert.deepEqual(steps, range(5).map((batch) => [batch, 3]));
        assert(closed, "sources are closed");
      }
    },
  );
  const shadow: Ending = { batches: [4, 2, 0], whenOut: "shadow" };
  test("shadows take part until the last rank is out", 3, stepThrough, shadow, (all) => {
    const active = [2, 2, 1, 1];
    [[0, 1, 2, 3], [0, 1, -1, -1], [-1, -1, -1, -1]].forEach((batches, rank) =>
      assert.deepEqual(all[rank].steps, batches.map((batch, i) => [batch, active[i]]))
    );
  });
  const even: Ending = { batches: [2, 2], whenOut: "shadow" };
  test("even ranks end together", 2, stepThrough, even, (all) => {
    assert.deepEqual(all.map(({ steps }) => steps.length), [2, 2]);
  });
  const thrown: Ending = { batches: [9, 2], whenOut: "shadow", throws: 1 };
  test("batches that fail are their rank's failure on all", 2, stepThrough, thrown, (all) => {
    const { code, ranks, message } = same(all.map(({ failure }) => failure)) ?? assert.fail();
    assert.deepEqual([code, ranks], ["rankFailed", [1]]);
    assert.match(message, /the disk is full/);
    assert(all.every(({ steps, closed }) => steps.length === 2 && closed));
  });
  test("batches that never come are named, and closed", 3, waitForBatches, null, (all) => {
    const { code, ranks } = same(all.map(([failure]) => failure));
    assert.deepEqual([code, ranks], ["deadline", [1]]);
    assert.deepEqual(all.map(([, closed]) => closed), [0, 1, 0]);
  }, 400);
  test("batches are not asked after their end", 2, askCarefully, "end", (all) => {
    const failure = same(all.map(([failure]) => failure));
    assert.match(failure.message, /rank 1 ran out, rank 0 did not/);
    assert.deepEqual(all.map(([, closed]) => closed), [1, 0]);
  });
  test(
    "batches are neither asked nor closed after a failure",
    2,
    askCarefully,
    "failure",
    (all) => {
      assert.match(same(all.map(([failure]) => failure)).message, /the disk is full/);
      assert.deepEqual(all.map(([, closed]) => closed), [0, 0]);
    },
  );
  test("ranks that end otherwise disagree", 2, chooseOtherwise, null, (all) => {
    assert.match(same(all).message, /disagree.*joinUneven stop.*joinUneven shadow/);
  });
  for (
    const [what, text] of [
      ["batches", /must be an iterable or an async iterable: current value is 5/],
      ["whenOut", /whenOut must be "stop" or "shadow": current value is "later"/],
      ["emptyBatch", /needs options\.emptyBatch, a function.*current value is undefined/],
    ] as const
  ) {
    test(`wrong ${what} are their rank's failure on all`, 2, joinBadly, what, (all) => {
      const { code, ranks, message } = same(all);
      assert.deepEqual([code, ranks], ["rankFailed", [1]]);
      assert.match(message, text);
    });
  }
  test("ranks that leave at the same step stay in step", 3, leaveTogether, null, (all) => {
    assert.deepEqual(same(all), [3, true]);
  });
  test("a rank that leaves alone is noticed", 2, leaveAlone, null, ([failure]) => {
    assert.match(failure?.message ?? "", /disagree.*joinUneven stop.*barrier "epilogue"/);
  });
}

import assert from "node:assert/strict";
import { CollectiveError, fromAllGather, inProcessGroup, runRanks, sum } from "../mod.ts";
import { groupSuite } from "./group_suite.ts";
import { gatheredKit, inProcessKit } from "./reference_kit.ts";

groupSuite(inProcessKit);
groupSuite(gatheredKit);

const one = Float64Array.of(1);
const never = new Promise<never>(() => {});

Deno.test("inProcessGroup() refuses impossible worlds", () => {
  for (const size of [0, -1, 1.5, NaN]) {
    assert.throws(() => inProcessGroup(size), /worldSize must be an integer >= 1/);
  }
  for (const timeoutMs of [0, -1, NaN, 2 ** 31]) {
    assert.throws(() => inProcessGroup(2, { timeoutMs }), /timeoutMs must be in \(0, 2147483647\]/);
  }
});

Deno.test("inProcessGroup() waits for ever where asked to", async () => {
  const [a, b] = inProcessGroup(2, { timeoutMs: Infinity });
  const pending = a.allReduce(one, sum);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(await Promise.all([pending, b.allReduce(one, sum)]), [
    Float64Array.of(2),
    Float64Array.of(2),
  ]);
});

Deno.test("runRanks() returns what the ranks return, in rank order", async () => {
  const ranks = await runRanks(3, async ({ rank, barrier }) => {
    if (rank === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await barrier();
    return rank;
  });
  assert.deepEqual(ranks, [0, 1, 2]);
});

Deno.test("runRanks() fails the others at once when a rank throws", async () => {
  const failures: unknown[] = [];
  const cause = new Error("out of data");
  const run = runRanks(3, async ({ rank, allReduce }) => {
    await allReduce(one, sum);
    if (rank === 1) throw cause;
    await allReduce(one, sum).catch((error) => failures.push(error));
    await allReduce(one, sum).catch((error) => failures.push(error));
  }, { timeoutMs: Infinity });
  await assert.rejects(run, cause);
  assert.equal(failures.length, 4);
  for (const failure of failures) {
    assert(failure instanceof CollectiveError);
    assert.deepEqual([failure.code, failure.ranks], ["rankFailed", [1]]);
    assert.equal(failure.cause, cause);
    assert.equal(failure.message, "Rank 1 of this group of 3 failed after 1 calls: out of data");
  }
});

Deno.test("runRanks() fails the others at once when a rank throws before any await", async () => {
  const run = runRanks(2, ({ rank, barrier }) => {
    if (rank === 0) throw new TypeError("wrong from the start");
    return barrier();
  }, { timeoutMs: Infinity });
  await assert.rejects(run, { name: "TypeError", message: "wrong from the start" });
});

Deno.test("runRanks() fails those who wait for a rank that ended, in sub-groups too", async () => {
  for (const where of ["world", "half"] as const) {
    const run = runRanks(4, async (world) => {
      const half = await world.split(world.rank % 2);
      const group = where === "world" ? world : half;
      if (world.rank === 2) return;
      if (world.rank % 2 === 0 || where === "world") await group.barrier({ label: "epoch" });
    }, { timeoutMs: Infinity });
    const ended = where === "world" ? 2 : 1;
    await assert.rejects(run, (error) => {
      assert(error instanceof CollectiveError);
      assert.deepEqual([error.code, error.ranks], ["rankFailed", [ended]]);
      assert.match(error.message, /barrier "epoch", as rank \d ended before it/);
      return true;
    });
  }
});

Deno.test("runRanks() rejects a call that comes after a rank has ended", async () => {
  const run = runRanks(2, async ({ rank, barrier }) => {
    if (rank === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
    await barrier();
  }, { timeoutMs: Infinity });
  await assert.rejects(run, /call 1, barrier, as rank 0 ended before it/);
});

Deno.test("a broken group leaves no rejection unhandled", async () => {
  const [a, b] = inProcessGroup(2, { timeoutMs: 10 });
  await assert.rejects(a.allReduce(one, sum), /rank 1 did not arrive within 10 ms/);
  await assert.rejects(b.allReduce(Promise.reject(new Error("late")), sum), /did not arrive/);
  await assert.rejects(a.allReduce(never, sum), /did not arrive/);
});

Deno.test("a deadline says what it knows of the ranks that failed", async () => {
  const [a, b] = inProcessGroup(3, { timeoutMs: 10 });
  const calls = [a.allReduce(Promise.reject(new Error("disk full")), sum), b.allReduce(one, sum)];
  for (const call of calls) {
    await assert.rejects(call, (error) => {
      assert(error instanceof CollectiveError);
      assert.deepEqual([error.code, error.ranks], ["deadline", [2]]);
      assert.match(error.message, /rank 2 did not arrive.*rank 0 had failed: disk full/);
      assert.equal((error.cause as Error).message, "disk full");
      return true;
    });
  }
});

Deno.test("a bad root leaves no rejection of the values unhandled", async () => {
  const [alone] = inProcessGroup(1);
  const broken = Promise.reject(new Error("disk full"));
  await assert.rejects(alone.broadcast(broken, 5), /root must be a rank below 1/);
});

Deno.test("runRanks() ends a rank in the sub-group that its last split makes", async () => {
  const run = runRanks(2, async (world) => {
    if (world.rank === 0) return void world.split(0);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const half = await world.split(0);
    await half.barrier();
  }, { timeoutMs: Infinity });
  await assert.rejects(run, /barrier, as rank 0 ended before it/);
});

Deno.test("runRanks() lets a rank end while its last call is still under way", async () => {
  let total: Promise<Float64Array> | undefined;
  await runRanks(2, async ({ rank, allReduce }) => {
    if (rank === 1) await new Promise((resolve) => setTimeout(resolve, 5));
    const pending = allReduce(one, sum);
    if (rank === 0) total = pending;
    else await pending;
  }, { timeoutMs: Infinity });
  assert.deepEqual(await total, Float64Array.of(2));
});

Deno.test("fromAllGather() refuses every call after its gather has failed", async () => {
  let calls = 0;
  const lost = new Error("connection lost");
  const allReduce = fromAllGather((local) => {
    if (++calls === 3) return Promise.reject(lost);
    return Promise.resolve([local, local]);
  });
  assert.deepEqual(await allReduce(one, sum), Float64Array.of(2));
  await assert.rejects(allReduce(one, sum), lost);
  await assert.rejects(allReduce(one, sum), lost);
  assert.equal(calls, 3);
});

Deno.test("fromAllGather() gives its caller an array of its own", async () => {
  const buffer = Float64Array.of(2, 1, 5);
  const allReduce = fromAllGather((local) => {
    const header = local.length > 3;
    return Promise.resolve([header ? local : buffer]);
  });
  const total = await allReduce(Float64Array.of(2, 1, 5), sum);
  total.fill(9);
  assert.deepEqual(buffer, Float64Array.of(2, 1, 5));
});

Deno.test("fromAllGather() tells labels apart however long they are", async () => {
  for (const where of ["start", "end"]) {
    const results = await Promise.all(
      inProcessGroup(2).map(async ({ rank, allGather }) => {
        const allReduce = fromAllGather((local) => allGather(local));
        const filling = "x".repeat(2000);
        const label = where === "start" ? `${rank}${filling}` : `${filling}${rank}`;
        return await allReduce(one, sum, { label }).then(() => "combined", (error) => error.code);
      }),
    );
    assert.deepEqual(results, ["disagreement", "disagreement"]);
  }
});

Deno.test("fromAllGather() refuses what a gather must not resolve to", async () => {
  for (const wrong of [[], [Float64Array.of(1)], undefined]) {
    const allReduce = fromAllGather(() => Promise.resolve(wrong as Float64Array[]));
    await assert.rejects(
      allReduce(one, sum),
      /gather must resolve to one Float64Array of \d+ values per rank/,
    );
  }
});

Deno.test("ranks that never wait for anything else leave their thread turns", async () => {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const busy = (ms: number) => {
    for (const end = performance.now() + ms; performance.now() < end;);
  };
  try {
    await runRanks(2, async ({ allReduce }) => {
      for (let i = 0; i < 100; i++) {
        busy(1);
        await allReduce(one, sum);
      }
    });
  } finally {
    clearInterval(timer);
  }
  assert(ticks >= 4, `${ticks} in 200 ms`);
});

Deno.test("splitting does not keep sub-groups alive in an inProcessGroup()", async () => {
  // 3 KB each would make 60 MB; what the collector has not got to yet is far less.
  const [alone] = inProcessGroup(1);
  for (let i = 0; i < 1000; i++) await alone.split(0);
  const before = Deno.memoryUsage().heapUsed;
  for (let i = 0; i < 20_000; i++) await alone.split(0);
  assert((Deno.memoryUsage().heapUsed - before) / 2 ** 20 < 40);
});

Deno.test("splitting does not keep sub-groups alive in runRanks()", async () => {
  // 5 KB each made 100 MB; a rank that ends must all the same be missed in the last one.
  const grown = await runRanks(2, async ({ rank, split }) => {
    for (let i = 0; i < 1000; i++) await split(0);
    const before = Deno.memoryUsage().heapUsed;
    for (let i = 0; i < 20_000; i++) await split(0);
    const grown = (Deno.memoryUsage().heapUsed - before) / 2 ** 20;
    const last = await split(0);
    if (rank === 0) await assert.rejects(last.barrier(), /rank 1 ended before it/);
    return grown;
  }, { timeoutMs: Infinity });
  assert(grown.every((mebibytes) => mebibytes < 40), `${grown}`);
});

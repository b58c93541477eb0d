/** Ends of groups of workers, all in one thread: what is a matter of microseconds between threads can be arranged here. */

import assert from "node:assert/strict";
import {
  type SeatOptions,
  workerGroup,
  type WorkerSeats,
  workerSeats,
} from "../lib/groups/workers.ts";
import { type CollectiveError, type ProcessGroup, sum } from "../mod.ts";
import { counting } from "./signals.ts";

const one = Float64Array.of(1);
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const failure = (call: Promise<unknown>): Promise<CollectiveError> =>
  call.then(() => assert.fail("the call succeeded"), (error) => error);

/** How long a body may take, in ms. */
const LIMIT_MS = 10_000;

function test(
  name: string,
  worldSize: number,
  options: SeatOptions,
  body: (groups: readonly ProcessGroup[], world: WorkerSeats) => Promise<void>,
): void {
  Deno.test(`worker groups: ${name}`, async () => {
    const world = workerSeats(worldSize, options);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("it hangs")), LIMIT_MS);
    });
    try {
      await Promise.race([body(world.seats.map((seat) => workerGroup(seat)), world), limit]);
    } finally {
      clearTimeout(timer);
      world.close();
      // A port in this thread closes a moment after its other end has.
      for (const { link } of world.seats) if (link instanceof MessagePort) link.close();
    }
  });
}

for (const transport of ["shared", "port"] as const) {
  const on = (what: string) => `${what}, over ${transport}`;

  test(on("leave() wakes those who wait for ever"), 2, { transport, timeoutMs: Infinity }, async (
    [a],
    { leave },
  ) => {
    const call = failure(a.barrier({ label: "epoch" }));
    await pause(20);
    leave(1);
    assert.match((await call).message, /"epoch", as rank 1 ended before it/);
  });
  test(on("a rank that ends after its call still brings its values"), 2, { transport }, async (
    [a, b],
    { leave },
  ) => {
    const last = b.allReduce(pause(50).then(() => one), sum);
    const first = a.allReduce(one, sum);
    await pause(20); // Over ports leave() overtakes calls that are still on their way.
    leave(1);
    assert.deepEqual(await Promise.all([first, last]), [Float64Array.of(2), Float64Array.of(2)]);
  });
  test(
    on("a sub-group knows who had ended before it was made"),
    2,
    { transport, timeoutMs: Infinity },
    async ([a, b], { leave }) => {
      const parts = [b.split(0), pause(20).then(() => a.split(0))];
      await pause(10);
      leave(1);
      const [, part] = await Promise.all(parts);
      assert.deepEqual((await failure(part.barrier())).ranks, [1]);
    },
  );
  test(on("labels that change are compared each time"), 2, { transport }, async ([a, b]) => {
    for (const label of ["a", "b", "c", "d"]) {
      await Promise.all([a.barrier({ label }), b.barrier({ label })]);
    }
    const [error] = await Promise.all([
      failure(a.barrier({ label: "e" })),
      failure(b.barrier({ label: "f" })),
    ]);
    assert.match(error.message, /rank 0 called barrier "e".*rank 1 called barrier "f"/);
  });
  test(
    on("a deadline tells of ranks that had failed"),
    2,
    { transport, timeoutMs: 100 },
    async ([a]) => {
      const error = await failure(a.allReduce(Promise.reject(new Error("no data")), sum));
      assert.match(
        error.message,
        /rank 1 did not arrive within 100 ms; rank 0 had failed: no data/,
      );
    },
  );
  test(
    on("waiting for one's own values counts towards the deadline"),
    2,
    { transport, timeoutMs: 1000 },
    async ([a]) => {
      const start = performance.now();
      await failure(a.allReduce(pause(800).then(() => one), sum));
      assert(performance.now() - start < 1700);
    },
  );
  test(on("a split counts as a call"), 2, { transport }, async (groups) => {
    await Promise.all(groups.map(({ split }) => split(0)));
    const bad = () => {
      throw new Error("cannot add");
    };
    const errors = await Promise.all(
      groups.map(({ allReduce }) => failure(allReduce(one, bad))),
    );
    for (const error of errors) {
      assert.match(error.message, /Cannot complete call 2, allReduce of 1 values.*cannot add/);
    }
  });
  test(on("a rank's own error is the cause of what it gets"), 2, { transport }, async ([a, b]) => {
    const own = new Error("own");
    const errors = await Promise.all([
      failure(a.allReduce(Promise.reject(own), sum)),
      failure(b.allReduce(one, sum)),
    ]);
    assert.deepEqual(errors.map(({ cause }) => cause), [own, undefined]);
    const reason = new Error("enough");
    const cancelled = await failure(a.barrier({ signal: AbortSignal.abort(reason) }));
    assert.equal(cancelled.cause, reason);
  });
  test(on("a seat is taken once"), 2, { transport }, async ([a, b], { seats }) => {
    for (const seat of seats) {
      assert.throws(() => workerGroup(seat), {
        name: "TypeError",
        message: /seat of rank \d as each seat may be taken once.*make new seats for all ranks/,
      });
    }
    const totals = await Promise.all([a.allReduce(one, sum), b.allReduce(one, sum)]);
    assert.deepEqual(totals, [Float64Array.of(2), Float64Array.of(2)]);
  });
  test(on("a group that nobody has a handle on is kept for its call"), 2, { transport }, async (
    groups,
  ) => {
    // The collector has every reason to come; the areas of groups that are gone serve the next ones.
    for (let i = 0; i < 40; i++) {
      const late = (rank: number) => pause(rank === 0 ? 3 : 0).then(() => Float64Array.of(i));
      const totals = await Promise.all(groups.map(async (group) => {
        const total = (await group.split(0)).allReduce(late(group.rank), sum);
        for (let k = 0; k < 3; k++) new ArrayBuffer(2 ** 26);
        await group.split(group.rank);
        return (await total)[0];
      }));
      assert.deepEqual(totals, [2 * i, 2 * i]);
    }
  });
  test(on("signals are let go of"), 1, { transport }, async ([a]) => {
    const { signal, listeners } = counting();
    await a.barrier({ signal });
    assert.equal(listeners(), 0);
  });
  test(on("a long reason reads alike on all ranks"), 2, { transport }, async ([a, b]) => {
    const controller = new AbortController();
    const calls = [
      failure(a.barrier({ signal: controller.signal })),
      failure(b.allReduce(new Promise(() => {}), sum)),
    ];
    controller.abort(new Error("because ".repeat(500)));
    const [first, second] = await Promise.all(calls);
    assert.equal(first.message, second.message);
    assert.deepEqual([first.code, first.ranks], ["cancelled", [0]]);
  });
  test(on("a function whose name is no text is its rank's failure"), 2, { transport }, async (
    [a, b],
  ) => {
    const odd = Object.defineProperty((x: Float64Array) => x, "name", { value: Symbol("odd") });
    const errors = await Promise.all([
      failure(a.allReduce(one, odd)),
      failure(b.allReduce(one, sum)),
    ]);
    for (const { code, ranks } of errors) assert.deepEqual([code, ranks], ["rankFailed", [0]]);
    const totals = await Promise.all([a.allReduce(one, sum), b.allReduce(one, sum)]);
    assert.deepEqual(totals, [Float64Array.of(2), Float64Array.of(2)]);
  });
  test(on("a call from within combine waits for its turn"), 2, { transport }, async (groups) => {
    const behind: Promise<Float64Array>[] = [];
    const [first] = await Promise.all(groups.map(({ allReduce }) => {
      let called = false;
      return allReduce(one, (x, y) => {
        // Whoever combines; the other one calls afterwards.
        if (!called) behind.push(allReduce(one, sum));
        called = true;
        return sum(x, y);
      });
    }));
    assert.deepEqual(first, Float64Array.of(2));
    if (behind.length < groups.length) {
      const others = groups.filter((_, rank) => rank !== 1);
      for (const { allReduce } of others) behind.push(allReduce(one, sum));
    }
    for (const total of await Promise.all(behind)) assert.deepEqual(total, Float64Array.of(2));
  });
}

test(
  "labels that differ past what travels are told apart",
  3,
  { transport: "shared" },
  async (groups) => {
    const label = (rank: number) => "x".repeat(3000) + (rank === 1 ? "b" : "a");
    const errors = await Promise.all(
      groups.map(({ rank, barrier }) => failure(barrier({ label: label(rank) }))),
    );
    for (const { code, message } of errors) {
      assert.equal(code, "disagreement");
      assert.match(
        message,
        /ranks 0, 2 called barrier "x+\.\.\. .*; rank 1 called barrier "x+\.\.\. /,
      );
    }
  },
);

test("calls over ports reject once the seats are closed", 2, {
  transport: "port",
  timeoutMs: Infinity,
}, async ([a], { close }) => {
  const pending = failure(a.barrier());
  await pause(20);
  close();
  for (const error of [await pending, await failure(a.barrier())]) {
    assert.equal(error.code, "cancelled");
    assert.match(error.message, /whoever made the seats has closed them/);
  }
});

test(
  "a thread that may not be held up takes no seat by block",
  1,
  { transport: "shared" },
  async () => {
    const { seats } = workerSeats(1, { transport: "shared" });
    const { wait } = Atomics;
    Atomics.wait = () => {
      throw new TypeError("Atomics.wait cannot be called in this context");
    };
    try {
      assert.throws(() => workerGroup(seats[0], { wait: "block" }), {
        name: "TypeError",
        message: /wait "block" needs a thread that may be held up.*join it in a worker/,
      });
    } finally {
      Atomics.wait = wait;
    }
    // It is not taken by that.
    const total = await workerGroup(seats[0]).allReduce(one, sum);
    assert.deepEqual(total, one);
  },
);

test(
  "a port that was taken, then handed on, is a seat that is taken",
  2,
  { transport: "port" },
  async (
    [a],
    { seats },
  ) => {
    const [, seat] = seats;
    const link = structuredClone(seat.link as MessagePort, {
      transfer: [seat.link as MessagePort],
    });
    const again = workerGroup({ ...seat, link });
    await pause(20); // The hub's answer is on its way.
    assert.match((await failure(again.barrier())).message, /seat of rank 1 .* taken once/);
    link.close();
    assert.equal(a.rank, 0);
  },
);

test(
  "room in shared memory that nobody uses any more serves again",
  2,
  { transport: "shared" },
  async (
    groups,
    { seats },
  ) => {
    const { byteLength } = seats[0].link as SharedArrayBuffer;
    for (let i = 0; i < 4000; i++) await Promise.all(groups.map(({ split }) => split(0)));
    // Without it some 1.7 GB.
    assert((seats[0].link as SharedArrayBuffer).byteLength - byteLength < 2 ** 29);
  },
);

test("ranks may leave while groups are made, and none is missed", 4, {
  transport: "shared",
  timeoutMs: 5000,
}, async (
  groups,
  { leave },
) => {
  const parts = Promise.all(groups.map(({ rank, split }) => split(rank % 2)));
  leave(3);
  const [first, second] = await parts;
  assert.deepEqual((await failure(second.barrier())).ranks, [1]);
  assert.equal(first.worldSize, 2);
});

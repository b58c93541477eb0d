/** Workers that go wrong in their own ways, one per name; the parameter says which. */

import { serveRank } from "../../lib/groups/workers.ts";
import { CollectiveError, type ProcessGroup, referenceDevice, sum, tensor } from "../../mod.ts";

const one = Float64Array.of(1);

/** What a rank saw. */
export interface Seen {
  readonly code: string;
  readonly ranks: readonly number[];
  readonly message: string;
  readonly ms: number;
}

/** The CollectiveError that a promise rejects with, and when. */
async function seen(promise: Promise<unknown>): Promise<Seen> {
  const start = performance.now();
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof CollectiveError)) throw error;
    const { code, ranks, message } = error;
    return { code, ranks, message, ms: performance.now() - start };
  }
  throw new Error("the call succeeded");
}

/** Holds up the thread, which leaves the core to others. */
function hold(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Splits again and again, and now and then has the part do something. */
async function splitOften(world: ProcessGroup, times: number): Promise<string> {
  for (let i = 0; i < times; i++) {
    const pair = await world.split(0, -world.rank);
    if (i % 300 > 0) continue;
    const [total] = await pair.allReduce(Float64Array.of(world.rank), sum);
    if (total !== 1 || pair.rank !== 1 - world.rank) throw new Error(`${total} in ${pair.rank}`);
  }
  return "done";
}

/** Rank 1 fails a call, which the others get at once, and throws its error only later. */
async function consequenceFirst({ rank, allReduce }: ProcessGroup): Promise<unknown> {
  const own = new RangeError("out of data");
  const call = allReduce(rank === 1 ? Promise.reject(own) : one, sum);
  if (rank !== 1) return await call;
  await call.catch(() => {});
  await pause(50);
  throw own;
}

const bodies: Record<string, (group: ProcessGroup) => unknown> = {
  rankAndTotal: async ({ rank, allReduce }) => [rank, ...await allReduce(one, sum)],
  throwInRank1: async ({ rank, allReduce }) => {
    await allReduce(one, sum);
    if (rank === 1) throw new RangeError("out of data");
    return await seen(allReduce(one, sum));
  },
  throwInRank1AndTellOthers: async ({ rank, allReduce }) => {
    if (rank === 1) throw new RangeError("out of data");
    await allReduce(one, sum);
  },
  closeRank1: async ({ rank, allReduce }) => {
    if (rank === 1) {
      globalThis.close();
      await new Promise(() => {});
    }
    await allReduce(one, sum);
  },
  exitRank1: async ({ rank, allReduce }) => {
    if (rank === 1) Deno.exit(0);
    await allReduce(one, sum);
  },
  rejectInRank1: async ({ rank, allReduce }) => {
    if (rank === 1) Promise.reject(new Error("nobody listens"));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await allReduce(one, sum);
  },
  endEarly: async ({ rank, allReduce }) => {
    if (rank === 1) return;
    await allReduce(one, sum, { label: "epoch" });
  },
  endEarlyInHalf: async (world) => {
    const half = await world.split(world.rank % 2);
    if (world.rank === 2) return;
    await half.allReduce(one, sum, { label: "epoch" });
  },
  exitAll: () => Deno.exit(0),
  endSilently: ({ rank }) => {
    if (rank === 1) Deno.exit(0);
  },
  slow: async ({ rank }) => {
    if (rank === 1) await pause(1000);
    return rank;
  },
  goOnWithout0: async (world) => {
    const part = await world.split(world.rank === 0 ? 0 : 1);
    if (world.rank === 0) return "left";
    // A rank that does not answer within 600 ms is taken for gone after 900 ms.
    const end = performance.now() + 1100;
    let calls = 0;
    // The first rank of the part says when all stop.
    for (let go = 1; go === 1; calls++) {
      [go] = await part.broadcast(Float64Array.of(performance.now() < end ? 1 : 0), 0);
    }
    return calls > 100 ? "went on" : `only ${calls} calls`;
  },
  tickWhileCalling: async ({ worldSize, allReduce }) => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    // Until all have had a turn; a fast machine makes many calls within 10 ms.
    let ticking = 0;
    for (let i = 0; i < 500_000 && ticking < worldSize; i++) {
      [ticking] = await allReduce(Float64Array.of(Math.min(ticks, 1)), sum);
    }
    clearInterval(timer);
    return ticking === worldSize;
  },
  consequenceFirst,
  consequenceFirstAndHang: async (group) => {
    if (group.rank !== 2) return await consequenceFirst(group);
    await group.allReduce(one, sum).catch(() => {});
    await new Promise(() => {});
  },
  combineSlowly: async ({ rank, allReduce }) => {
    if (rank === 1) await pause(50);
    const slow = (a: Float64Array) => {
      hold(1000);
      return a;
    };
    return await seen(allReduce(one, slow));
  },
  splitInAllSizes: async (world) => {
    // Enough to fill the gibibyte that a world has, were none taken again.
    for (let i = 0; i < 1800; i++) {
      // In turn three alone, two and one, and all three together.
      const part = await world.split([world.rank, Math.min(world.rank, 1), 0][i % 3]);
      const [ranks] = await part.allReduce(one, sum);
      if (ranks !== part.worldSize) throw new Error(`${ranks} of ${part.worldSize} in split ${i}`);
    }
    const last = await world.split(0);
    if (world.rank === 1) return "left";
    await last.barrier({ label: "last" });
  },
  returnATensor: () => {
    const output = tensor(referenceDevice(), [1, 2], [2, 1]);
    return Promise.resolve({ loss: Float64Array.of(1), step: [{ output }] });
  },
  throwOddly: ({ rank }) => {
    if (rank === 0) return Promise.resolve();
    const odd = new Error();
    for (const name of ["name", "message", "stack"]) {
      Object.defineProperty(odd, name, {
        get: () => {
          throw new Error("no text");
        },
      });
    }
    throw odd;
  },
  returnAFunction: () => () => 1,
  neverEnd: () => new Promise(() => {}),
  hangAfterFailure: async ({ rank }) => {
    if (rank === 1) throw new Error("first of all");
    await new Promise(() => {});
  },
  // As many as would fill the gibibyte that a world has, were none taken again.
  splitOften: async (world) => await splitOften(world, 3000),
  // Over ports there is none.
  splitOverPorts: async (world) => await splitOften(world, 600),
  manyLengths: async ({ rank, allReduce, allGather, broadcast }) => {
    for (const length of [0, 1, 2, 3, 4, 5, 8191, 8192, 8193, 140_000]) {
      const local = Float64Array.from({ length }, (_, i) => i * (rank + 1));
      const total = await allReduce(local, sum);
      const all = await allGather(local);
      const sent = await broadcast(local, 1);
      const right = total.length === length && all.length === 2 && sent.length === length &&
        total.every((value, i) => value === 3 * i) &&
        all.every((values, other) => values.every((value, i) => value === i * (other + 1))) &&
        sent.every((value, i) => value === 2 * i);
      if (!right) throw new Error(`wrong at length ${length}`);
    }
    return "done";
  },
};

serveRank((group, name: string) => bodies[name](group));

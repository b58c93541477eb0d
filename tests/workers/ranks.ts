/** Workers that go wrong in their own ways, one per name; the parameter says which. */

import { serveRank } from "../../lib/groups/workers.ts";
import { CollectiveError, type ProcessGroup, sum } from "../../mod.ts";

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
  returnAFunction: () => () => 1,
  neverEnd: () => new Promise(() => {}),
  hangAfterFailure: async ({ rank }) => {
    if (rank === 1) throw new Error("first of all");
    await new Promise(() => {});
  },
  splitOften: async (world) => {
    for (let i = 0; i < 5000; i++) {
      const pair = await world.split(0, -world.rank);
      if (i % 500 > 0) continue;
      const [total] = await pair.allReduce(Float64Array.of(world.rank), sum);
      if (total !== 1 || pair.rank !== 1 - world.rank) throw new Error(`${total} in ${pair.rank}`);
    }
    return "done";
  },
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

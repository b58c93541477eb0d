/**
 * A process group whose ranks are concurrent tasks of one JavaScript thread: for tests, for one GPU shared by several
 * replicas, and as the model for engines that cross threads and machines.
 *
 * `runRanks` settles when every rank has, and rejects with the error that was thrown first: no task outlives it.
 *
 * @module
 */

import type { ProcessGroup } from "../collectives.ts";
import { checkWorld, type Engine, membersOf, processGroup } from "./engine.ts";
import { createRendezvous, type Rendezvous } from "./rendezvous.ts";

/** Options of {@linkcode inProcessGroup} and {@linkcode runRanks}. */
export interface InProcessOptions {
  /** How long the first rank to arrive at a call waits for the others, in ms; Infinity for ever; 60,000 by default. */
  readonly timeoutMs?: number;
}

/** The ranks of one group, in one thread. */
export interface World {
  /** One end per rank, in rank order. */
  readonly engines: readonly Engine[];
  /** Tells that a rank will not call again, also not in its sub-groups: it ended, or it failed with a cause. */
  readonly leave: Rendezvous["leave"];
}

/**
 * Makes one group handle per rank, for ranks that run as concurrent tasks of this thread.
 *
 * Contributions are folded in rank order and every rank gets the same bits. Ranks that disagree, fail, come late or
 * are cancelled give the same CollectiveError to all. A rank that ends without a word is noticed at the deadline;
 * {@linkcode runRanks} notices it at once.
 *
 * @param worldSize number of ranks, >= 1
 * @param options the deadline
 * @returns the handles, in rank order, all frozen
 * @throws RangeError for an impossible number of ranks or deadline
 *
 * @example
 * ```ts
 * import { inProcessGroup, sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const [a, b] = inProcessGroup(2);
 * const totals = await Promise.all([
 *   a.allReduce(Float64Array.of(1), sum),
 *   b.allReduce(Float64Array.of(2), sum),
 * ]);
 * assert.deepEqual(totals, [Float64Array.of(3), Float64Array.of(3)]);
 * ```
 */
export function inProcessGroup(
  worldSize: number,
  options: InProcessOptions = {},
): readonly ProcessGroup[] {
  return Object.freeze(createWorld(worldSize, options, false).engines.map(processGroup));
}

/**
 * Runs one task per rank concurrently and waits for all of them.
 *
 * A rank that throws, or ends while others still wait for it, fails their pending and later collectives at once, those
 * of sub-groups too, so that no collective is left pending. Other things that a body awaits are its own business.
 *
 * @param worldSize number of ranks, >= 1
 * @param body what each rank does, with its handle on the group
 * @param options the deadline
 * @returns what the ranks returned, in rank order
 * @throws (rejects with) the error that was thrown first, once every rank has settled
 *
 * @example
 * ```ts
 * import { runRanks, sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const totals = await runRanks(3, async ({ rank, allReduce }) => {
 *   const [total] = await allReduce(Float64Array.of(rank), sum);
 *   return total;
 * });
 * assert.deepEqual(totals, [3, 3, 3]);
 * ```
 */
export async function runRanks<T>(
  worldSize: number,
  body: (group: ProcessGroup) => Promise<T>,
  options: InProcessOptions = {},
): Promise<T[]> {
  const { engines, leave } = createWorld(worldSize, options, true);
  let first: { readonly cause: unknown } | undefined;
  const results = await Promise.allSettled(engines.map(async (engine) => {
    const { rank } = engine;
    try {
      const result = await body(processGroup(engine));
      leave(rank);
      return result;
    } catch (cause) {
      first ??= { cause };
      leave(rank, { cause });
      throw cause;
    }
  }));
  if (first) throw first.cause;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}

/**
 * Makes the ranks of one thread.
 *
 * @param worldSize number of ranks, >= 1
 * @param options the deadline
 * @param followed whether somebody will tell of ranks that leave, and sub-groups must hear of it
 * @returns their ends
 * @throws RangeError for an impossible number of ranks or deadline
 */
export function createWorld(
  worldSize: number,
  { timeoutMs = 60_000 }: InProcessOptions,
  followed: boolean,
): World {
  checkWorld(worldSize, timeoutMs);
  const meeting = createRendezvous(worldSize, timeoutMs);
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const children: { readonly world: World; readonly members: readonly number[] }[] = [];
  const gone = new Map<number, Parameters<World["leave"]>[1]>();
  // Sub-groups that some of their members have not come for yet, by the number of the split and the members.
  const splits = ranks.map(() => 0);
  const fresh = new Map<string, { readonly world: World; waiting: number }>();

  /** The first member of a sub-group to come makes it; the last one leaves no trace of it here. */
  const enter = (rank: number, split: number, members: readonly number[]): Engine => {
    const key = `${split}: ${members}`;
    const entry = fresh.get(key) ?? { world: found(members), waiting: members.length };
    fresh.set(key, entry);
    if (--entry.waiting === 0) fresh.delete(key);
    return entry.world.engines[members.indexOf(rank)];
  };

  const found = (members: readonly number[]): World => {
    const world = createWorld(members.length, { timeoutMs }, followed);
    if (followed) children.push({ world, members });
    // A rank may have ended while its split was still under way.
    members.forEach((rank, place) => {
      if (gone.has(rank)) world.leave(place, gone.get(rank));
    });
    return world;
  };

  const engines = ranks.map((rank): Engine => ({
    rank,
    worldSize,
    meet: (request) => meeting.meet(rank, request),
    split: async (request) => {
      const split = ++splits[rank];
      return enter(rank, split, membersOf(await meeting.meet(rank, request), rank));
    },
  }));
  return {
    engines,
    leave: (rank, failure) => {
      gone.set(rank, failure);
      meeting.leave(rank, failure);
      for (const { world, members } of children) {
        if (members.includes(rank)) world.leave(members.indexOf(rank), failure);
      }
    },
  };
}

/**
 * A process group whose ranks are concurrent tasks of one JavaScript thread: for tests, for one GPU shared by several
 * replicas, and as the model for engines that cross threads and machines.
 *
 * `runRanks` settles when every rank has, and rejects with the error that was thrown first: no task outlives it.
 */

import { checkFunction, checkOptions } from "../check_effects.ts";
import type { ProcessGroup } from "../collectives.ts";
import {
  cannotBlock,
  checkWorld,
  type Engine,
  membersOf,
  processGroup,
  type Request,
} from "./engine.ts";
import {
  createRendezvous,
  createRoll,
  type LocalRequest,
  type Roll,
  type Within,
} from "./rendezvous.ts";

/** Options of {@linkcode inProcessGroup} and {@linkcode runRanks}. */
export interface InProcessOptions {
  /** How long the first rank to arrive at a call waits for the others, in ms; Infinity for ever; 60,000 by default. */
  readonly timeoutMs?: number;
}

const ONE_THREAD = /* @__PURE__ */ cannotBlock(
  "its ranks must have threads of their own: these share one, and would wait for each other for ever; " +
    "use workers or MPI, or await allReduce()",
);

/** One rank's end in this thread. */
export interface LocalEngine extends Engine {
  readonly meet: (request: LocalRequest) => Promise<readonly Float64Array[]>;
  readonly split: (request: Request) => Promise<LocalEngine>;
  /** The same ranks once more, for what belongs to their call of that number; it breaks with the group. */
  readonly within: (call: number) => LocalEngine;
}

/**
 * Makes one group handle per rank, for ranks that run as concurrent tasks of this thread.
 *
 * Contributions are folded in rank order and every rank gets the same bits. Ranks that disagree, fail, come late or
 * are cancelled give the same CollectiveError to all. A rank that ends without a word is noticed at the deadline;
 * {@linkcode runRanks} notices it at once.
 *
 * @param worldSize number of ranks, >= 1
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
  checkOptions(options, ["timeoutMs"], "make the group");
  return Object.freeze(createWorld(worldSize, options).engines.map(processGroup));
}

/**
 * Runs one task per rank concurrently and waits for all of them.
 *
 * A rank that throws, or ends while others still wait for it, fails their pending and later collectives at once, those
 * of sub-groups too, so that no collective is left pending. Other things that a body awaits are its own business.
 *
 * @param worldSize number of ranks, >= 1
 * @param body what each rank does, with its handle on the group
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
  const action = "run the ranks";
  checkOptions(options, ["timeoutMs"], action);
  checkFunction(body, "the body", action);
  const { engines, leave } = createWorld(worldSize, options);
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
 * Makes the ranks of one thread, an end for each in their order. `leave` tells that one will not call again, also not in its
 * sub-groups: it ended, or it failed with a cause.
 */
export function createWorld(worldSize: number, { timeoutMs = 60_000 }: InProcessOptions) {
  checkWorld(worldSize, timeoutMs);
  const roll = createRoll();
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  return { engines: found(ranks, roll, timeoutMs), leave: roll.leave };
}

/** Makes the ends of a group, whose members are ranks of a world. */
function found(
  members: readonly number[],
  roll: Roll,
  timeoutMs: number,
  inside?: Within,
): readonly LocalEngine[] {
  const worldSize = members.length;
  const meeting = createRendezvous(members, roll, timeoutMs, inside);
  // Groups that some of their members have not come for yet.
  const splits = members.map(() => 0);
  const fresh = new Map<string, { readonly engines: readonly LocalEngine[]; waiting: number }>();

  /** The first member of a group to come makes it; the last one leaves no trace of it here. */
  const enter = (name: string, rank: number, part: readonly number[], inside?: Within) => {
    const key = `${name}: ${part}`;
    const entry = fresh.get(key) ?? {
      engines: found(part.map((i) => members[i]), roll, timeoutMs, inside),
      waiting: part.length,
    };
    fresh.set(key, entry);
    if (--entry.waiting === 0) fresh.delete(key);
    return entry.engines[part.indexOf(rank)];
  };

  return members.map((_, rank): LocalEngine => ({
    rank,
    worldSize,
    meet: (request) => meeting.meet(rank, request),
    meetNow: ONE_THREAD,
    split: async (request) => {
      const split = ++splits[rank];
      const part = membersOf(await meeting.meet(rank, request), rank);
      return enter(`split ${split}`, rank, part);
    },
    within: (call) => enter(`call ${call}`, rank, [...members.keys()], { outer: meeting, call }),
  }));
}

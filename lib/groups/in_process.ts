/**
 * A process group whose ranks are concurrent tasks of one JavaScript thread: for tests, for one GPU shared by several
 * replicas, and as the model for engines that cross threads and machines.
 *
 * @module
 */

import type { AllReduce, Broadcast, CollectiveOptions, ProcessGroup } from "../collectives.ts";
import { fold } from "./contributions.ts";
import { createRendezvous, type Rendezvous } from "./rendezvous.ts";

/** Options of {@linkcode inProcessGroup} and {@linkcode runRanks}. */
export interface InProcessOptions {
  /** How long the first rank to arrive at a call waits for the others, in ms; Infinity for ever; 60,000 by default. */
  readonly timeoutMs?: number;
}

interface World {
  readonly groups: readonly ProcessGroup[];
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
  return createWorld(worldSize, options, false).groups;
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
  const { groups, leave } = createWorld(worldSize, options, true);
  let first: { readonly cause: unknown } | undefined;
  const results = await Promise.allSettled(groups.map(async (group) => {
    try {
      const result = await body(group);
      leave(group.rank);
      return result;
    } catch (cause) {
      first ??= { cause };
      leave(group.rank, { cause });
      throw cause;
    }
  }));
  if (first) throw first.cause;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}

/** `followed` says whether somebody will tell of ranks that leave, and sub-groups must hear of it. */
function createWorld(
  worldSize: number,
  { timeoutMs = 60_000 }: InProcessOptions,
  followed: boolean,
): World {
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    throw new RangeError(
      `Cannot make the group as worldSize must be an integer >= 1: current value is ${worldSize}`,
    );
  }
  const longest = 2 ** 31 - 1;
  if (timeoutMs !== Infinity && !(timeoutMs > 0 && timeoutMs <= longest)) {
    throw new RangeError(
      `Cannot make the group as timeoutMs must be in (0, ${longest}] or Infinity: ` +
        `current value is ${timeoutMs}`,
    );
  }
  const meeting = createRendezvous(worldSize, timeoutMs);
  const children: { readonly world: World; readonly members: readonly number[] }[] = [];
  const gone = new Map<number, Parameters<World["leave"]>[1]>();

  /** Makes the sub-groups that [color, key] of every rank ask for; one handle per old rank. */
  const divide = (wishes: readonly Float64Array[]): readonly ProcessGroup[] => {
    const handles: ProcessGroup[] = [];
    const ranks = [...wishes.keys()];
    for (const color of new Set(wishes.map(([color]) => color))) {
      const members = ranks.filter((rank) => wishes[rank][0] === color)
        .sort((a, b) => wishes[a][1] - wishes[b][1] || a - b);
      const world = createWorld(members.length, { timeoutMs }, followed);
      if (followed) children.push({ world, members });
      members.forEach((rank, place) => {
        handles[rank] = world.groups[place];
        // A rank may have ended while its split was still under way.
        if (gone.has(rank)) world.leave(place, gone.get(rank));
      });
    }
    return handles;
  };

  return {
    groups: Object.freeze(
      Array.from({ length: worldSize }, (_, rank) => handle(meeting, rank, worldSize, divide)),
    ),
    leave: (rank, failure) => {
      gone.set(rank, failure);
      meeting.leave(rank, failure);
      for (const { world, members } of children) {
        if (members.includes(rank)) world.leave(members.indexOf(rank), failure);
      }
    },
  };
}

function handle(
  meeting: Rendezvous,
  rank: number,
  worldSize: number,
  divide: (wishes: readonly Float64Array[]) => readonly ProcessGroup[],
): ProcessGroup {
  const common = (kind: string, options?: CollectiveOptions) => ({
    name: options?.label === undefined ? kind : `${kind} "${options.label}"`,
    signal: options?.signal,
  });
  const length = (values: Float64Array) => `of ${values.length} values`;

  const allReduce: AllReduce = (values, combine, options) =>
    meeting.meet(rank, {
      ...common("allReduce", options),
      detail: (own) => `${length(own)} with ${combine.name || "an unnamed function"}`,
      values,
      conclude: (all) => {
        const total = fold(all, combine);
        return all.map(() => total.slice());
      },
    });

  const broadcast: Broadcast = (values, root, options) => {
    const isRank = Number.isInteger(root) && root >= 0 && root < worldSize;
    if (!isRank) Promise.resolve(values).catch(() => {}); // The root's error comes first.
    return meeting.meet(rank, {
      ...common("broadcast", options),
      detail: (own) => `${length(own)} from rank ${root}`,
      values: isRank ? values : refused(
        `Cannot broadcast as root must be a rank below ${worldSize}: current value is ${root}`,
      ),
      conclude: (all) => all.map(() => all[root].slice()),
    });
  };

  const group: ProcessGroup = {
    rank,
    worldSize,
    allReduce,
    broadcast,
    allGather: (values, options) =>
      meeting.meet(rank, {
        ...common("allGather", options),
        detail: length,
        values,
        conclude: (all) => all.map(() => Object.freeze(all.map((own) => own.slice()))),
      }),
    barrier: (options) =>
      meeting.meet(rank, {
        ...common("barrier", options),
        detail: () => "of all ranks",
        values: new Float64Array(0),
        conclude: (all) => all.map(() => undefined),
      }),
    split: (color, key = 0, options) =>
      meeting.meet(rank, {
        ...common("split", options),
        detail: () => "by color",
        values: Number.isFinite(color) && Number.isFinite(key)
          ? Float64Array.of(color, key)
          : refused(
            `Cannot split the group as color and key must be finite: current values are ${color} and ${key}`,
          ),
        conclude: divide,
      }),
  };
  return Object.freeze(group);
}

function refused(message: string): Promise<never> {
  return Promise.reject(new RangeError(message));
}

/** Replicas that must be equal: made so from one of them, and compared bit by bit. */

import { groupIn, signalIn } from "../check_effects.ts";
import type { CollectiveOptions, ProcessGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { CollectiveError } from "../errors.ts";
import { exchange } from "../exchange.ts";
import { checkWire } from "../wire.ts";
import { digest, fromWords, wordsOf } from "../bits.ts";
import { type Flat, readBack, uploadLike } from "./trees.ts";
import { inTurn, turnOf } from "./turn.ts";
import { ranksOf, wrongKind, wrongValue } from "../words.ts";

/** Options of {@linkcode broadcastState}. */
export interface BroadcastStateOptions extends Pick<CollectiveOptions, "signal"> {
  /** The rank whose state all shall have; 0 by default. */
  readonly root?: number;
}

/**
 * Gives every rank the state of one of them: all vectors, bit by bit, and all numbers, such as eps, momentum and the
 * counter.
 *
 * What the state is made of must be equal on every rank: channels, which vectors there are, whether momentum is null.
 * The root alone reads back, the others alone upload; one collective. It takes whole models too: plain records,
 * arrays, Maps and Sets, nested as they may be, of states, arrays, tensors, null, numbers, strings and booleans (the latter
 * two must be equal).
 *
 * @param state a state as of `initBatchNorm`, or a tree of such; it is not changed
 * @param effects `device`: where it lives; `group`: the ranks
 * @returns on the root the given state; elsewhere a frozen one of new arrays with the root's bits, in which what stood at
 * two places stands as two
 * @throws (rejects with) CollectiveError, the same on every rank, where states differ in what they are made of, ranks
 * name different roots or one that is no rank, a rank failed (`cause`: for a freed array or one of another device a
 * TypeError that names it), or did not arrive
 *
 * @example Replicas that began with different weights
 * ```ts
 * import { broadcastState, initBatchNorm, referenceDevice, runRanks, stateToHost } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const weights = await runRanks(2, async (group) => {
 *   const random = () => group.rank / 2;
 *   const own = initBatchNorm(device, 2, { weightInit: "uniform", random });
 *   const state = await broadcastState(own, { device, group }, { root: 1 });
 *   return [...(await stateToHost(device, state)).weight ?? []];
 * });
 * assert.deepEqual(weights, [[0.5, 0.5], [0.5, 0.5]]);
 * ```
 */
export async function broadcastState<A, T>(
  state: T,
  effects: {
    readonly device: Device<A>;
    readonly group: Pick<ProcessGroup, "rank" | "worldSize" | "broadcast">;
  },
  options: BroadcastStateOptions = {},
): Promise<T> {
  const action = "broadcast the state";
  const { rank, worldSize } = groupIn(effects, options, action, "broadcast");
  const { device, group } = effects;
  const { root = 0 } = options ?? {};
  const signal = signalIn(options);
  const kind = { action, name: "state", settings: true };
  const turn = turnOf<A, T>(effects, state, kind, options, ["root"], () => {
    if (Number.isInteger(root) && root >= 0 && root < worldSize) return;
    throw wrongValue(action, `root must be a rank below ${worldSize}`, root);
  });
  if (worldSize === 1) {
    turn.get();
    return state;
  }
  return await inTurn(turn, device, async (scope) => {
    const wire = async (): Promise<Float64Array> => {
      const parts = turn.get();
      return rank === root ? await wireOf(scope, parts) : new Float64Array(lengthOf(parts));
    };
    const label = `broadcastState ${turn.flat?.structure ?? "of what is no state"}`;
    const { total } = await exchange(
      () => ({ wire: wire() }),
      (sending) => group.broadcast(sending, root, { label, signal }),
    );
    const { leaves, numbers, rebuild } = turn.get();
    if (rank === root) return state;
    checkWire(total, lengthOf(turn.get()), action);
    const values = fromWords(total.subarray(numbers.length));
    return rebuild(uploadLike(scope, leaves, values), [...total.subarray(0, numbers.length)]);
  });
}

const lengthOf = ({ numbers, total }: Pick<Flat<unknown, unknown>, "numbers" | "total">) =>
  numbers.length + total;

/** [numbers, values as words]: a NaN loses its payload when it travels as a number, its bits do not. */
async function wireOf<A>(device: Device<A>, flat: Flat<A, unknown>): Promise<Float64Array> {
  const { numbers } = flat;
  const wire = new Float64Array(lengthOf(flat));
  numbers.forEach(({ value }, i) => wire[i] = value);
  wire.set(wordsOf(await readBack(device, flat)), numbers.length);
  return wire;
}

const COMPARE = "compare the replicas";

/**
 * Checks that a state has the same bits on every rank.
 *
 * Two words of 32 bits per vector travel, and the numbers of the state. One flipped bit always changes them, any other
 * difference goes unnoticed once in 2^64 (MurmurHash3 twice, Appleby 2011). Only where something differs the ranks
 * look for it, in a few more collectives. NaNs of different payload differ, as do 0 and -0.
 *
 * @param state a state as of `initBatchNorm`, or a tree of such, as {@linkcode broadcastState} takes it; objects of classes
 * may stand in it too
 * @param effects `device`: where it lives; `group`: the ranks
 * @throws (rejects with) CollectiveError, the same on every rank: with code "disagreement" and as `ranks` those that
 * differ from rank 0, naming the first value that differs, such as `runningVar[3]`; where states differ in what they
 * are made of, a rank failed (`cause`: for a freed array a TypeError that names it), or did not arrive. The group stays
 * usable
 *
 * @example A rank that has gone astray
 * ```ts
 * import { assertReplicated, initBatchNorm, referenceDevice, runRanks } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const run = runRanks(2, async (group) => {
 *   const state = initBatchNorm(device, 2, { eps: group.rank });
 *   await assertReplicated(state, { device, group });
 * });
 * await assert.rejects(run, /current eps is 0 on rank 0 and 1 on rank 1/);
 * ```
 */
export async function assertReplicated<A>(
  state: unknown,
  effects: {
    readonly device: Device<A>;
    readonly group: Pick<ProcessGroup, "worldSize" | "allGather">;
  },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<void> {
  const { worldSize } = groupIn(effects, options, COMPARE, "allGather");
  const { device, group } = effects;
  const kind = { action: COMPARE, name: "state", settings: true, compared: true };
  const turn = turnOf<A, unknown>(effects, state, kind, options);
  if (worldSize === 1) return void turn.get();
  const label = `assertReplicated ${turn.flat?.structure ?? "of what is no state"}`;
  const common = { label, signal: signalIn(options) };
  const launch = () => {
    const words = (async () => await wordsByLeaf(device, turn.get()))();
    return { words, wire: words.then((all) => summaryOf(turn.get(), all)) };
  };
  const { total: all, launched } = await exchange(
    launch,
    (sending) => group.allGather(sending, common),
  );
  const { numbers, leaves } = turn.get();
  const names = [...numbers, ...leaves.flatMap((leaf) => [leaf, leaf])].map(({ path }) => path);
  checkGathered(all, worldSize, names.length);
  const place = firstDifference(all);
  if (place < 0) return;
  const seen = place < numbers.length
    ? { where: names[place], values: all.map((own) => textOf(own[place])) }
    : await locate(
      names[place],
      (await launched.words)[(place - numbers.length) >> 1],
      (own) => group.allGather(own, common),
    );
  throw differenceError(all, names, seen);
}

async function wordsByLeaf<A>(device: Device<A>, flat: Flat<A, unknown>) {
  const all = wordsOf(await readBack(device, flat));
  let at = 0;
  return flat.leaves.map(({ length }) => all.subarray(at, at += length));
}

/** [numbers, a digest of two words per array]. */
function summaryOf<A>({ numbers }: Flat<A, unknown>, words: readonly Uint32Array[]) {
  return Float64Array.from([...numbers.map(({ value }) => value), ...words.flatMap(digest)]);
}

/** The first place at which a rank's numbers are not those of rank 0; -1 where there is none. */
function firstDifference(all: readonly Float64Array[]): number {
  return all[0].findIndex((value, i) => all.some((own) => !Object.is(own[i], value)));
}

/** Parts that are compared at once in the search for a value. */
const PARTS = 256;

/** Finds the first value of an array that differs, by digests of ever smaller parts. */
async function locate(
  path: string,
  words: Uint32Array,
  gather: (own: Float64Array) => Promise<readonly Float64Array[]>,
) {
  let [from, to] = [0, words.length];
  while (to - from > PARTS) {
    const size = Math.ceil((to - from) / PARTS);
    const starts = Array.from({ length: Math.ceil((to - from) / size) }, (_, i) => from + i * size);
    const digests = starts.flatMap((start) =>
      digest(words.subarray(start, Math.min(to, start + size)))
    );
    const first = firstDifference(await gather(Float64Array.from(digests))) >> 1;
    [from, to] = [starts[first], Math.min(to, starts[first] + size)];
  }
  const all = await gather(Float64Array.from(words.subarray(from, to)));
  const at = firstDifference(all);
  const values = all.map((own) => {
    const [value] = fromWords(own.subarray(at, at + 1));
    return `${textOf(value)} (0x${own[at].toString(16).padStart(8, "0")})`;
  });
  return { where: `${path || "state"}[${from + at}]`, values };
}

function textOf(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function differenceError(
  all: readonly Float64Array[],
  names: readonly string[],
  { where, values }: { readonly where: string; readonly values: readonly string[] },
): CollectiveError {
  const ranks = [...all.keys()].filter((rank) => firstDifference([all[0], all[rank]]) >= 0);
  const paths = new Set(names.filter((_, i) => all.some((own) => !Object.is(own[i], all[0][i]))));
  const some = [...paths].slice(0, 5).map((path) => path || "state").join(", ");
  const more = paths.size > 5 ? ` and ${paths.size - 5} more` : "";
  const odd = ranks.find((rank) => values[rank] !== values[0]) ?? ranks[0];
  const differ = `${ranksOf(ranks)} ${ranks.length === 1 ? "differs" : "differ"}`;
  return new CollectiveError(
    `Cannot go on as the replicas must have the same bits on every rank: current ${where} is ` +
      `${values[0]} on rank 0 and ${values[odd]} on rank ${odd}; ${differ} from rank 0 in ` +
      `${some}${more}: broadcastState makes them equal`,
    "disagreement",
    ranks,
  );
}

function checkGathered(all: readonly Float64Array[], worldSize: number, length: number): void {
  if (all?.length !== worldSize) {
    const wanted = `allGather must resolve to ${worldSize} arrays`;
    throw wrongKind(COMPARE, wanted, all?.length, "number");
  }
  for (const own of all) checkWire(own, length, COMPARE);
}

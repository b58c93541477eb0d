/**
 * What can go wrong on a rank, again and again, and what every rank then saw: the ranks' side of the failure report.
 * Every body closes over nothing, so that it runs in workers and in processes alike.
 */

import assert from "node:assert/strict";
import {
  assertReplicated,
  batchNormForward,
  CollectiveError,
  combineMoments,
  initBatchNorm,
  type ProcessGroup,
  referenceDevice,
  stateToHost,
  sum,
  syncBatchNormForward,
  tensor,
  withParameters,
} from "../../mod.ts";

/** What goes wrong on rank 1; on rank 0 where it is `cancelled`. */
export const KINDS = [
  "killed before a collective",
  "killed in a collective",
  "killed after a collective",
  "throws",
  "late past the deadline",
  "cancelled",
  "other length",
  "other operation",
  "other call count",
  "other channels",
  "other weights",
] as const;
/** One of them. */
export type Kind = typeof KINDS[number];

/** What to do. */
export interface Plan {
  readonly kind: Kind;
  /** How often, each time on a sub-group of its own; 1 is on the group itself. */
  readonly times: number;
  /** The group's deadline, which its ranks must know in order to miss it. */
  readonly timeoutMs: number;
}

/** What a rank saw of one failure. */
export interface Outcome {
  readonly code: string;
  readonly ranks: readonly number[];
  readonly message: string;
  /** How long the failing call took, in ms. */
  readonly ms: number;
  /** Results that were not what they had to be. */
  readonly wrong: number;
  /** Whether the state from before is unchanged and trains on, alone. */
  readonly stateKept: boolean;
}

const TRUTH = 3;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Has a failure happen to this group, and tells what came of it. */
export async function fail(
  group: ProcessGroup,
  { kind, times, timeoutMs }: Plan,
): Promise<readonly Outcome[]> {
  if (times === 1) return [await once(group, kind, timeoutMs)];
  const outcomes: Outcome[] = [];
  for (let i = 0; i < times; i++) {
    outcomes.push(await once(await group.split(0, group.rank), kind, timeoutMs));
  }
  return outcomes;
}

async function once(group: ProcessGroup, kind: Kind, timeoutMs: number): Promise<Outcome> {
  const device = referenceDevice();
  const odd = group.rank === 1;
  const first = initBatchNorm(device, odd && kind === "other channels" ? 5 : 4);
  const state = odd && kind === "other weights"
    ? withParameters(first, { weight: device.upload(Float32Array.of(1, 1, 1, 1 + 2 ** -23)) })
    : first;
  const before = await stateToHost(device, state);
  const input = tensor(
    device,
    Array.from({ length: 3 * state.numFeatures }, (_, i) => i * (group.rank + 1)),
    [3, state.numFeatures],
  );
  let wrong = await sumOf(group, "before") === TRUTH ? 0 : 1;

  const start = performance.now();
  const error = await misbehave(kind, odd, timeoutMs, group, {
    reduce: async () => {
      const total = await sumOf(group, "failing");
      if (total !== TRUTH) wrong++;
      if (kind.startsWith("killed")) await group.allReduce(new Float64Array(1), sum);
    },
    train: () => syncBatchNormForward(state, input, { device, group }),
    compare: () => assertReplicated(state, { device, group }),
  });
  const ms = performance.now() - start;
  // The ranks of a group that has only refused a call go on with it.
  if (error.code === "disagreement" && await sumOf(group, "after") !== TRUTH) wrong++;

  const forward = batchNormForward(state, input, { device });
  const after = await stateToHost(device, state);
  const stateKept = forward.state.numBatchesTracked === 1 && isEqual(before, after);
  return { ...error, ms, wrong, stateKept };
}

/** The sum of 1 + rank over the first two ranks. */
async function sumOf({ rank, allReduce }: ProcessGroup, label: string): Promise<number> {
  const [total] = await allReduce(Float64Array.of(rank < 2 ? 1 + rank : 0), sum, { label });
  return total;
}

interface Calls {
  readonly reduce: () => Promise<unknown>;
  readonly train: () => Promise<unknown>;
  readonly compare: () => Promise<unknown>;
}

async function misbehave(
  kind: Kind,
  odd: boolean,
  timeoutMs: number,
  group: ProcessGroup,
  { reduce, train, compare }: Calls,
): Promise<Pick<Outcome, "code" | "ranks" | "message">> {
  const three = new Float64Array(3);
  switch (kind) {
    case "killed before a collective":
      if (odd) await die();
      return await seen(reduce());
    case "killed in a collective":
      if (odd) {
        const dying = die(20);
        await sumOf(group, "failing");
        await dying; // A worker that waits blocked ends after that.
      }
      // Not there yet when rank 1 dies waiting.
      await pause(Math.min(150, timeoutMs / 2));
      return await seen(reduce());
    case "killed after a collective":
      if (odd) {
        await sumOf(group, "failing");
        await die();
      }
      return await seen(reduce());
    case "throws":
      if (odd) throw new RangeError("out of data");
      return await seen(reduce());
    case "late past the deadline":
      if (odd) await pause(timeoutMs + 200);
      return await seen(reduce());
    case "cancelled": {
      const controller = new AbortController();
      if (group.rank === 0) setTimeout(() => controller.abort(new Error("user left")), 10);
      if (odd) await pause(30);
      const options = group.rank === 0 ? { signal: controller.signal } : {};
      return await seen(group.allReduce(three, sum, options));
    }
    case "other length":
      return await seen(group.allReduce(odd ? new Float64Array(20_000) : three, sum));
    case "other operation":
      return await seen(group.allReduce(three, odd ? combineMoments : sum));
    case "other call count":
      return await seen(odd ? train() : group.barrier({ label: "one more" }));
    case "other channels":
      return await seen(train());
    case "other weights":
      return await seen(compare());
  }
}

async function seen(
  promise: Promise<unknown>,
): Promise<Pick<Outcome, "code" | "ranks" | "message">> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof CollectiveError)) throw error;
    const { code, ranks, message } = error;
    return { code, ranks: [...ranks], message };
  }
  return { code: "none", ranks: [], message: "the call succeeded" };
}

/** Ends this rank as a crash would: its process by SIGKILL, or its worker by whoever holds it. */
async function die(afterMs = 0): Promise<never> {
  const scope = globalThis as unknown as {
    readonly WorkerGlobalScope?: unknown;
    readonly postMessage: (message: KillMe) => void;
  };
  // At once: a worker that waits blocked has no timers.
  if (scope.WorkerGlobalScope !== undefined) scope.postMessage({ kill: true, afterMs });
  else {
    await pause(afterMs);
    Deno.kill(Deno.pid, "SIGKILL");
  }
  return await new Promise(() => {});
}

/** What a worker says that wants to be terminated. */
export interface KillMe {
  readonly kill: true;
  readonly afterMs: number;
}

function isEqual(a: unknown, b: unknown): boolean {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

/** What came of many collectives. */
export interface Soak {
  readonly times: number;
  readonly wrong: number;
  readonly seconds: number;
  /** Memory of this process after a tenth and at the end, in MiB. */
  readonly memory: readonly [number, number];
}

/** Small all-reduces, each with numbers of its own, all checked. */
export async function soak(
  { rank, worldSize, allReduce }: ProcessGroup,
  { times }: { readonly times: number },
): Promise<Soak> {
  const memory: [number, number] = [0, 0];
  const mebibytes = () => Deno.memoryUsage().rss / 2 ** 20;
  const start = performance.now();
  const local = new Float64Array(5);
  let wrong = 0;
  for (let i = 0; i < times; i++) {
    for (let j = 0; j < local.length; j++) local[j] = i + j * (rank + 1);
    const total = await allReduce(local, sum, { label: "soak" });
    const ranks = worldSize * (worldSize + 1) / 2;
    for (let j = 0; j < local.length; j++) if (total[j] !== worldSize * i + j * ranks) wrong++;
    if (i === Math.floor(times / 10)) memory[0] = mebibytes();
  }
  memory[1] = mebibytes();
  return { times, wrong, seconds: (performance.now() - start) / 1000, memory };
}

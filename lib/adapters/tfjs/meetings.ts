/**
 * A rank's own work as a generator that yields the collectives it waits for, so that whatever fails between two of them
 * reaches the other ranks at the next.
 *
 * @module
 */

import type { ReduceGroup } from "../../collectives.ts";
import { sum } from "../../moments.ts";

/** What the ranks compare, and a signal to give up. */
export interface Told {
  readonly label: string;
  readonly signal?: AbortSignal;
}

/** A collective, called once it is told over which group and under which label. */
export type Meeting<T> = (group: ReduceGroup, told: Told) => Promise<T>;

/** Work between collectives: it yields them, and goes on with what came of each. */
export type Work<R> = AsyncGenerator<Meeting<unknown>, R, unknown>;

/** Yields a collective of a known result. */
export function* meet<T>(meeting: Meeting<T>): Generator<Meeting<unknown>, T, unknown> {
  return (yield meeting) as T;
}

/** The sum of all ranks' numbers. */
export function summed(own: Float64Array): Meeting<Float64Array> {
  return ({ worldSize, allReduce }, told) =>
    worldSize === 1 ? Promise.resolve(own) : allReduce(own, sum, told);
}

/**
 * Does a rank's work, which meets the other ranks under these labels, one after the other. What it throws before a
 * meeting is brought there in place of its contribution; what it throws after the last is its own.
 */
export async function holdMeetings<R>(
  work: Work<R>,
  labels: readonly string[],
  group: ReduceGroup,
  signal: AbortSignal | undefined,
): Promise<R> {
  let came: unknown;
  try {
    for (const label of labels) {
      const told = { label, signal };
      const next = await work.next(came).catch((error) => tell(error, group, told));
      if (next.done) return next.value;
      came = await next.value(group, told);
    }
    const last = await work.next(came);
    if (last.done) return last.value;
    throw new Error("A rank's work must end with its last meeting");
  } finally {
    await work.return(undefined as R);
  }
}

/** Tells the other ranks of a failure where they wait for this one; all of them, and this one, get it as the cause. */
async function tell(
  error: unknown,
  { worldSize, allReduce }: ReduceGroup,
  told: Told,
): Promise<never> {
  if (worldSize > 1) {
    const failure = Promise.reject(error);
    failure.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
    await allReduce(failure, sum, told);
  }
  throw error;
}

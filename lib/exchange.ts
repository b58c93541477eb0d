/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * The readback is given to the collective as a promise, so that a rank's own failure travels to all. All ranks then get
 * a `CollectiveError`, the failing one too, with the original error as its `cause`.
 */

import type { CollectiveOptions, Combine, ReduceGroup } from "./collectives.ts";

/** What was launched, with its readback. */
export interface Launched {
  readonly wire: Promise<Float64Array>;
}

/**
 * Launches this rank's part and reduces it over the group, in one readback and one collective. What `launch` throws
 * becomes this rank's failure on every rank.
 *
 * The collective is called before the first await, with the readback still under way: ranks match calls by program
 * order, so parallel branches must not overtake each other.
 */
export function exchange<T extends Launched>(
  group: ReduceGroup,
  launch: () => T,
  combine: Combine,
  options: CollectiveOptions,
): Promise<Exchanged<Float64Array, T>> {
  return exchangeBy(launch, (sending) => group.allReduce(sending, combine, options));
}

/** What a collective resolved to, what was launched, and what this rank gave. */
export interface Exchanged<R, T> {
  readonly total: R;
  readonly launched: T;
  readonly own: Float64Array;
}

/** Launches this rank's part and hands it to any collective, as {@linkcode exchange} does to a reduction. */
export async function exchangeBy<T extends Launched, R>(
  launch: () => T,
  collective: (sending: Promise<Float64Array>) => Promise<R>,
): Promise<Exchanged<R, T>> {
  const reading = start(launch);
  const sending = reading.then(({ own }) => own);
  sending.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
  const total = await collective(sending);
  // An engine that resolves although this rank has failed is not believed.
  const { launched, own } = await reading;
  return { total, launched, own };
}

async function start<T extends Launched>(launch: () => T) {
  const launched = launch();
  return { launched, own: await launched.wire };
}

/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * @module
 */

import type { CollectiveOptions, Combine, ReduceGroup } from "./collectives.ts";

/**
 * Launches this rank's part and reduces it over the group, in one readback and one collective.
 *
 * The collective is called before the first await, with the readback still under way: ranks match calls by program
 * order, so parallel branches must not overtake each other.
 *
 * @param group the ranks
 * @param launch checks and launches; `wire` is its readback. What it throws becomes this rank's failure on every rank
 * @param combine folds the wires of two ranks
 * @param options label and signal of the collective
 * @returns the reduced wire, and what was launched
 */
export function exchange<T extends Launched>(
  group: ReduceGroup,
  launch: () => T,
  combine: Combine,
  options: CollectiveOptions,
): Promise<{ readonly total: Float64Array; readonly launched: T }> {
  return exchangeBy(launch, (sending) => group.allReduce(sending, combine, options));
}

/** What was launched, with its readback. */
interface Launched {
  readonly wire: Promise<Float64Array>;
}

/**
 * Launches this rank's part and hands it to any collective, as {@linkcode exchange} does to a reduction.
 *
 * @param launch checks and launches; `wire` is its readback. What it throws becomes this rank's failure on every rank
 * @param collective the call; made before the first await
 * @returns what the collective resolved to, and what was launched
 */
export async function exchangeBy<T extends Launched, R>(
  launch: () => T,
  collective: (sending: Promise<Float64Array>) => Promise<R>,
): Promise<{ readonly total: R; readonly launched: T }> {
  const reading = start(launch);
  const sending = reading.then(({ values }) => values);
  sending.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
  const total = await collective(sending);
  // An engine that resolves although this rank has failed is not believed.
  const { launched } = await reading;
  return { total, launched };
}

async function start<T extends Launched>(launch: () => T) {
  const launched = launch();
  return { launched, values: await launched.wire };
}

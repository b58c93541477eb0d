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
export async function exchange<T extends { readonly wire: Promise<Float64Array> }>(
  group: ReduceGroup,
  launch: () => T,
  combine: Combine,
  options: CollectiveOptions,
): Promise<{ readonly total: Float64Array; readonly launched: T }> {
  const reading = start(launch);
  const sending = reading.then(({ values }) => values);
  sending.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
  const total = await group.allReduce(sending, combine, options);
  // An engine that resolves although this rank has failed is not believed.
  const { launched } = await reading;
  return { total, launched };
}

async function start<T extends { readonly wire: Promise<Float64Array> }>(launch: () => T) {
  const launched = launch();
  return { launched, values: await launched.wire };
}

/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * @module
 */

import { checkWire } from "./checks.ts";
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

/**
 * Puts readbacks side by side, so that they travel in one collective.
 *
 * @param wires the readbacks
 * @returns the one of them, or all
 */
export async function sideBySide(wires: readonly Promise<Float64Array>[]): Promise<Float64Array> {
  const read = await Promise.all(wires);
  if (read.length === 1) return read[0];
  const all = new Float64Array(read.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const wire of read) {
    all.set(wire, at);
    at += wire.length;
  }
  return all;
}

/**
 * Makes the combine of wires that lie side by side.
 *
 * @param combine that of one
 * @param lengths how long each is
 * @returns the combine itself for one wire, for others one that folds each with it
 */
export function combineEach(combine: Combine, lengths: readonly number[]): Combine {
  if (lengths.length === 1) return combine;
  return (a, b) => {
    const [left, right] = [a, b].map((all) => apart(all, lengths, "combine the wires"));
    const folded = new Float64Array(a.length);
    let at = 0;
    left.forEach((wire, i) => {
      folded.set(combine(wire, right[i]), at);
      at += wire.length;
    });
    return folded;
  };
}

/**
 * Takes wires apart again that lie side by side.
 *
 * @param all an array from a collective
 * @param lengths how long each is
 * @param action what the caller was about to do, for the message
 * @returns views of each
 * @throws TypeError for an array of another kind or length
 */
export function apart(
  all: Float64Array,
  lengths: readonly number[],
  action: string,
): readonly Float64Array[] {
  checkWire(all, lengths.reduce((total, length) => total + length, 0), action);
  let at = 0;
  return lengths.map((length) => all.subarray(at, at += length));
}

/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * The readback is given to the collective as a promise, so that a rank's own failure travels to all. All ranks then get
 * a `CollectiveError`, the failing one too, with the original error as its `cause`.
 *
 * @module
 */

import { checkWire } from "./checks.ts";
import type { CollectiveOptions, Combine, ReduceGroup } from "./collectives.ts";
import type { Device } from "./device.ts";

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

/** How an exchange in parts is folded. */
interface Folding {
  /** Number of parts, on every rank, whatever the launch does. */
  readonly parts: number;
  /** Folds the wires of two ranks. */
  readonly combine: Combine;
  /** Numbers that stand before those of the channels in the wire of a part. */
  readonly head: 0 | 1;
  /** What the caller was about to do, for messages. */
  readonly action: string;
}

/**
 * The same in parts of the channels, each with a collective of its own: all are called before the first await, in order, while
 * the readbacks of later parts are still to come. One part is {@linkcode exchange}.
 *
 * @param group the ranks
 * @param launch checks and launches; `wires` are the readbacks of the parts
 * @param folding how many parts there are, and how they are folded
 * @param options label and signal of the collectives
 * @returns the reduced wire of all channels, and what was launched
 */
export async function exchangeAll<T extends { readonly wires: readonly Promise<Float64Array>[] }>(
  group: ReduceGroup,
  launch: () => T,
  { parts, combine, head, action }: Folding,
  options: CollectiveOptions,
): Promise<{ readonly total: Float64Array; readonly launched: T }> {
  const launching = new Promise<T>((resolve) => resolve(launch())); // At once.
  const totals = Array.from({ length: parts }, async (_, part) => {
    const wire = launching.then(({ wires }) => wires[part]);
    const label = parts === 1 ? options.label : `${options.label} part ${part + 1} of ${parts}`;
    const collective = (sending: Promise<Float64Array>) =>
      group.allReduce(sending, combine, { ...options, label });
    const { total } = await exchangeBy(() => ({ wire }), collective);
    if (parts > 1) checkWire(total, (await wire).length, action);
    return total;
  });
  const all = await Promise.all(totals);
  return { total: parts === 1 ? all[0] : joinParts(all, head), launched: await launching };
}

/**
 * How many parts an exchange has.
 *
 * @param device what may overlap parts with each other
 * @param calls what is exchanged together; branches already share what parts would take apart
 * @returns 1 without overlap
 */
export function partsOf<A>({ overlapped }: Device<A>, { length }: readonly unknown[]): number {
  return length === 1 && overlapped ? overlapped.parts : 1;
}

/**
 * Puts the wires of parts of the channels together: what they begin with (the count of moments), then the first numbers of all
 * channels, then the second.
 *
 * @param wires [head, first C, second C] of each part
 * @param head how many numbers stand before: the same in all parts
 * @returns the wire of all channels
 */
function joinParts(wires: readonly Float64Array[], head: 0 | 1): Float64Array {
  const channelsOf = ({ length }: Float64Array) => (length - head) / 2;
  const channels = wires.reduce((sum, wire) => sum + channelsOf(wire), 0);
  const all = new Float64Array(head + 2 * channels);
  all.set(wires[0].subarray(0, head));
  let at = head;
  for (const wire of wires) {
    const [first, end] = [head, head + channelsOf(wire)];
    all.set(wire.subarray(first, end), at);
    all.set(wire.subarray(end), at + channels);
    at += channelsOf(wire);
  }
  return all;
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

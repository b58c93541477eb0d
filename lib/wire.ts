/**
 * Wires as values: what ranks exchange, and how the numbers of two of them become one. No other file knows how long a wire
 * is or what stands in it.
 */

import type { Combine } from "./collectives.ts";
import { combineMoments, sum } from "./moments.ts";
import { refused, shown } from "./words.ts";

/** How statistics travel: always float64, whatever the dtype of the tensors. */
export interface WireFormat {
  /** What the numbers are, for messages and labels. */
  readonly name: "moments" | "gradient sums";
  /** Numbers for C channels. */
  readonly length: (channels: number) => number;
  /** Folds the wires of two ranks. */
  readonly combine: Combine;
  /** Checks a total as a collective returned it, beside what this rank gave: throws for one that cannot be. */
  readonly check: (total: Float64Array, own: Float64Array, action: string) => void;
  /** Moments of another layout as [count, mean C, m2 C]; missing where they are that already. */
  readonly rounded?: (wire: Float64Array) => Float64Array;
}

/** What statistics of an ordinary format travel as on a device: on an exact one, as digits. */
export function formatOn(
  device: { readonly wires?: Readonly<Record<string, WireFormat>> },
  format: WireFormat,
): WireFormat {
  return device?.wires?.[format.name] ?? format;
}

/** Moments of a batch: [count, mean C, m2 C], folded by Chan's formula. */
export const momentsWire: WireFormat = Object.freeze<WireFormat>({
  name: "moments",
  length: (channels) => 1 + 2 * channels,
  combine: combineMoments,
  check: ([count], [own], action) => {
    if (!Number.isSafeInteger(count) || count < own) {
      throw new RangeError(
        `Cannot ${action} as the count that allReduce resolves to must be an integer >= this rank's own, ${own}: ` +
          `current value is ${count}; it must fold with the combine that it is given`,
      );
    }
  },
});

/** Gradient sums of a batch: [sumDy C, sumDyXmu C], which are added. */
export const sumsWire: WireFormat = Object.freeze<WireFormat>({
  name: "gradient sums",
  length: (channels) => 2 * channels,
  combine: sum,
  check: () => {},
});

/** Values per channel that the moments of a wire are of. */
export function countOf(moments: Float64Array): number {
  return moments[0];
}

/** Lays wires of one format side by side, for batch norms of so many channels each, so that they travel in one collective. */
export function sideBySide(format: WireFormat, channels: readonly number[]) {
  const lengths = channels.map(format.length);
  const length = lengths.reduce((total, length) => total + length, 0);
  /** Takes wires apart again, into views; a TypeError for what is no array of the right length. */
  const split = (all: Float64Array, action: string): readonly Float64Array[] => {
    checkWire(all, length, action);
    let at = 0;
    return lengths.map((length) => all.subarray(at, at += length));
  };
  const join = (wires: readonly Float64Array[]): Float64Array => {
    if (wires.length === 1) return wires[0];
    const all = new Float64Array(length);
    wires.reduce((at, wire) => (all.set(wire, at), at + wire.length), 0);
    return all;
  };
  /** Folds each wire with its own. */
  const each: Combine = (a, b) => {
    const [left, right] = [a, b].map((all) => split(all, "combine the wires"));
    return join(left.map((wire, i) => format.combine(wire, right[i])));
  };
  /** Takes a total apart as a collective returned it, checked beside what this rank gave. */
  const totals = (total: Float64Array, own: Float64Array, action: string) => {
    const [all, mine] = [total, own].map((wire) => split(wire, action));
    all.forEach((total, i) => format.check(total, mine[i], action));
    return all;
  };
  // What is added element by element needs no taking apart, and may be cut anywhere.
  const combine = lengths.length === 1 || format.combine === sum ? format.combine : each;
  return { join, totals, combine };
}

/** Checks an array as a collective returned it: a TypeError for another kind or length. */
export function checkWire(wire: Float64Array, length: number, action: string): void {
  if (wire instanceof Float64Array && wire.length === length) return;
  const came = wire instanceof Float64Array ? `${wire.length} values long` : shown(wire);
  const wanted = `allReduce must resolve to a Float64Array of ${length} values`;
  throw refused(action, wanted, `value is ${came}`);
}

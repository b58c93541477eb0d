/**
 * Wires as values: what ranks exchange, and how the numbers of two of them become one. No other file knows how long a wire
 * is or what stands in it.
 */

import type { Combine } from "./collectives.ts";
import { combineMoments, combineWeightedMoments, sum } from "./moments.ts";
import { refused, shown, wrongValue } from "./words.ts";

/** How statistics travel: always float64, whatever the dtype of the tensors. */
export interface WireFormat {
  /** What the numbers are, for messages and labels. */
  readonly name: "moments" | "weighted moments" | "gradient sums";
  /** Numbers for C channels. */
  readonly length: (channels: number) => number;
  /** Folds the wires of two ranks. */
  readonly combine: Combine;
  /** Checks what this rank has read back, before it gives it: throws for what nobody could have known before. */
  readonly checkOwn?: (own: Float64Array, action: string) => void;
  /** Checks a total as a collective returned it, beside the first two numbers that this rank gave: throws for one that cannot be. */
  readonly check: (total: Float64Array, own: Iterable<number>, action: string) => void;
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
export const momentsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
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

/**
 * Moments of a batch that counts by weight: [positives, W, mean C, m2 C], where W is the sum of the weights, the count of the
 * moments behind it, and `positives` says how many are positive; 2 may stand for all that are more. A W that is not finite
 * says that some weight is negative or not finite: only a device can look at them.
 */
export const weightedMomentsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
  name: "weighted moments",
  length: (channels) => 2 + 2 * channels,
  combine: combineWeightedMoments,
  checkOwn: ([, weight], action) => {
    if (Number.isFinite(weight)) return;
    throw wrongValue(action, "weights must be finite and >= 0", weight, "sum of them");
  },
  check: ([positives, weight], [own, ownWeight], action) => {
    if (Number.isSafeInteger(positives) && positives >= own && weight >= ownWeight) return;
    const wanted = "the total weights that allReduce resolves to must be this rank's own or more";
    throw wrongValue(action, wanted, `${positives} of sum ${weight}`);
  },
});

/** The format of moments: those of weighted values have a number of positive weights. */
export function momentsFormat({ positives }: { readonly positives?: number | null }): WireFormat {
  return positives === undefined ? momentsWire : weightedMomentsWire;
}

/** Gradient sums of a batch: [sumDy C, sumDyXmu C], which are added. */
export const sumsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
  name: "gradient sums",
  length: (channels) => 2 * channels,
  combine: sum,
  check: () => {},
});

/** A format like another but for some of it. */
export function wireLike(format: WireFormat, changes: Partial<WireFormat>): WireFormat {
  return Object.freeze({ ...format, ...changes });
}

/** [count, mean C, m2 C] of a wire of moments, weighted ones too: a view. */
export function plainOf(format: WireFormat, moments: Float64Array): Float64Array {
  return moments.subarray(format.length(0) - 1);
}

/** Values per channel that the moments of a wire are of; of weighted ones those whose weight is positive. */
export function countOf(moments: Float64Array): number {
  return moments[0];
}

/** Lays wires of one format side by side, for batch norms of so many channels each, so that they travel in one collective. */
export function sideBySide(
  format: WireFormat | readonly WireFormat[],
  channels: readonly number[],
) {
  const formats = channels.map((_, i) => "name" in format ? format : format[i]);
  const lengths = channels.map((channels, i) => formats[i].length(channels));
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
  /** What this rank gives, checked. */
  const own = (wires: readonly Float64Array[], action: string): Float64Array => {
    wires.forEach((wire, i) => formats[i].checkOwn?.(wire, action));
    return join(wires);
  };
  /** What is still needed of it once the total has taken its place. */
  const heads = (own: Float64Array): readonly (readonly number[])[] => {
    let at = 0;
    return lengths.map((length) => {
      const head = [own[at], own[at + 1]];
      at += length;
      return head;
    });
  };
  /** Folds each wire with its own. */
  const each: Combine = (a, b) => {
    const [left, right] = [a, b].map((all) => split(all, "combine the wires"));
    return join(left.map((wire, i) => formats[i].combine(wire, right[i])));
  };
  /** Takes a total apart as a collective returned it, checked beside the heads of what this rank gave. */
  const totals = (total: Float64Array, own: ReturnType<typeof heads>, action: string) => {
    const all = split(total, action);
    all.forEach((total, i) => formats[i].check(total, own[i], action));
    return all;
  };
  // What is added element by element needs no taking apart, and may be cut anywhere.
  const [{ combine: first } = sumsWire] = formats;
  const combine = lengths.length === 1 || first === sum ? first : each;
  return { own, heads, totals, combine };
}

/** Checks an array as a collective returned it: a TypeError for another kind or length. */
export function checkWire(wire: Float64Array, length: number, action: string): void {
  if (wire instanceof Float64Array && wire.length === length) return;
  const came = wire instanceof Float64Array ? `${wire.length} values long` : shown(wire);
  const wanted = `allReduce must resolve to a Float64Array of ${length} values`;
  throw refused(action, wanted, `value is ${came}`);
}

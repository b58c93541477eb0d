/** The wires of exact statistics: records of digits, which are added number by number. */

import { sum } from "../moments.ts";
import { weightedMomentsWire, type WireFormat } from "../wire.ts";
import { wrongValue } from "../words.ts";
import { carryRecord, momentsOf, RECORD } from "./record.ts";

/** Values per channel up to which sums are exact: kernels divide by counts of 32 bits. */
const MOST_VALUES = 2 ** 32 - 1;
/** A digit that is larger has lost some: so many ranks there cannot be. */
const MOST_DIGIT = 2 ** 53;

/** The largest weight that a sum without rounding takes: all whole numbers up to it are float32. */
export const MOST_WEIGHT = 2 ** 24;

/** Exact moments of a batch: [count, a record of 31 numbers per channel], which are added. */
export const exactMomentsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
  name: "moments",
  length: (channels) => 1 + RECORD * channels,
  combine: sum,
  check: (total, [own], action) => {
    const [count] = total;
    if (!Number.isSafeInteger(count) || count < own) {
      const wanted =
        `the count that allReduce resolves to must be an integer >= this rank's own, ${own}`;
      throw wrongValue(action, wanted, count, "count");
    }
    checkMost(count, action, "number over all ranks");
    checkDigits(total, 1, action);
  },
  rounded: (wire) => {
    const channels = (wire.length - 1) / RECORD;
    const moments = new Float64Array(1 + 2 * channels);
    const [count] = wire;
    moments[0] = count;
    if (count === 0) return moments;
    for (let c = 0; c < channels; c++) {
      [moments[1 + c], moments[1 + channels + c]] = momentsOf(wire, 1 + RECORD * c, count);
    }
    return moments;
  },
});

/**
 * Exact moments of a batch that counts by whole weights: [positives, W, a record per channel], as if each value were there as often as
 * its weight says. W is NaN where one is no whole number from 0 to 2^24.
 */
export const exactWeightedMomentsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
  name: "weighted moments",
  length: (channels) => 2 + RECORD * channels,
  combine: sum,
  checkOwn: ([, weight], action) => {
    if (Number.isNaN(weight)) {
      const wanted = "weights of an exact device must be whole numbers from 0 to 2^24";
      throw wrongValue(action, wanted, weight, "sum of them");
    }
    checkMost(weight, action, "sum of the weights");
  },
  check: (total, own, action) => {
    weightedMomentsWire.check(total, own, action);
    checkMost(total[1], action, "sum of the weights over all ranks");
    checkDigits(total, 2, action);
  },
  rounded: (wire) => {
    const moments = exactMomentsWire.rounded!(wire.subarray(1));
    const weighted = new Float64Array(1 + moments.length);
    weighted[0] = wire[0];
    weighted.set(moments, 1);
    return weighted;
  },
});

/** Exact gradient sums of a batch: a record of 31 numbers per channel, which are added. */
export const exactSumsWire: WireFormat = /* @__PURE__ */ Object.freeze<WireFormat>({
  name: "gradient sums",
  length: (channels) => RECORD * channels,
  combine: sum,
  check: (total, _, action) => checkDigits(total, 0, action),
});

/** What statistics of an exact device travel as, by the name of the ordinary format. */
export const EXACT_WIRES: Readonly<Record<string, WireFormat>> = /* @__PURE__ */ Object.freeze({
  "moments": exactMomentsWire,
  "weighted moments": exactWeightedMomentsWire,
  "gradient sums": exactSumsWire,
});

/** Makes the carries of a wire whose digits were added on one rank, where there is no end to how often. */
export function carryWire(format: WireFormat, wire: Float64Array): void {
  for (let at = format.length(0); at < wire.length; at += RECORD) {
    carryRecord(wire, at);
  }
}

function checkMost(count: number, action: string, name: string): void {
  if (count <= MOST_VALUES) return;
  const wanted = `exact statistics must be of ${MOST_VALUES} values per channel at most`;
  throw wrongValue(action, wanted, count, name);
}

function checkDigits(total: Float64Array, from: number, action: string): void {
  for (let i = from; i < total.length; i++) {
    // What is no number stands for terms that were none.
    if (Math.abs(total[i]) < MOST_DIGIT || !Number.isFinite(total[i])) continue;
    throw wrongValue(action, "a digit of exact sums must be below 2^53", total[i], "digit");
  }
}

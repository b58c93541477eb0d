/** Sums without rounding for whoever has gradients of other layers: what they come to depends on no order and no partition. */

import { checkInteger } from "../check_value.ts";
import { refused, wrongKind, wrongPair, wrongValue } from "../words.ts";
import { addTo, carry, MOST_PENDING, PRODUCT_DIGITS, PRODUCTS, roundedOf } from "./digits.ts";

/** Sums of many elements, to which terms are added row by row. They are changed in place, and live on the host. */
export interface ExactSums {
  /** Number of sums. */
  readonly length: number;
  /**
   * Adds a row of terms, one to each sum from `at` on (0 by default). Each is taken as it is, to the last bit; of one below 2^-267 in
   * size what lies below 2^-320 is rounded, which depends on that term alone. NaN and infinities go in as IEEE 754 has it.
   */
  readonly add: (terms: ArrayLike<number>, at?: number) => void;
  /** Each sum, rounded once to float64. */
  readonly round: () => Float64Array<ArrayBuffer>;
  /** The digits as they travel, 20 numbers per sum: two such arrays are added by `sum`. */
  readonly wire: () => Float64Array<ArrayBuffer>;
}

const SPECIAL = PRODUCT_DIGITS;
/** Numbers of a sum as it travels. */
export const SUM_LENGTH: number = SPECIAL + 1;
/** The lowest size that has no place. */
const TOO_LARGE = 2 ** 288;
const ACTION = "add the terms";

/**
 * Makes sums without rounding, all 0.
 *
 * For gradients of your own layers, and for a loss: add a row of each sample, as it was computed from that sample alone, and let
 * {@linkcode allReduceGradients} with `exact: true` take them over all ranks. Their total has the same bits however the samples are cut
 * over the ranks, in whatever order (Kulisch's accumulator, 608 bits per sum).
 *
 * @param length how many sums
 * @returns a frozen record, whose functions change what is behind it
 * @throws RangeError for a length that is no integer >= 0
 *
 * @example Terms of which float64 would lose one
 * ```ts
 * import { exactSums } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const sums = exactSums(1);
 * for (const term of [1e30, 1, -1e30]) sums.add([term]);
 * assert.deepEqual(sums.round(), Float64Array.of(1));
 * ```
 */
export function exactSums(length: number): ExactSums {
  checkInteger(length, "length", "make the sums", 0);
  const wire = new Float64Array(length * SUM_LENGTH);
  let pending = 0;
  const carryAll = () => {
    for (let at = 0; at < wire.length; at += SUM_LENGTH) carry(wire, at, PRODUCTS);
    pending = 0;
  };
  const sums: ExactSums = Object.freeze<ExactSums>({
    length,
    add: (terms, at = 0) => {
      checkTerms(terms, at, length);
      for (let i = 0; i < terms.length; i++) {
        const to = (at + i) * SUM_LENGTH;
        if (Number.isFinite(terms[i])) addTo(wire, to, PRODUCTS, terms[i]);
        else wire[to + SPECIAL] += terms[i];
      }
      if (++pending === MOST_PENDING) carryAll();
    },
    round: () => roundSums(wire),
    wire: () => {
      carryAll();
      return wire.slice();
    },
  });
  made.add(sums);
  return sums;
}

const made = /* @__PURE__ */ new WeakSet<object>();

/** Tells whether a value is what {@linkcode exactSums} made. */
export function isExactSums(value: unknown): value is ExactSums {
  return typeof value === "object" && value !== null && made.has(value);
}

/** Sums that travelled, each rounded once. */
export function roundSums(wire: Float64Array): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: wire.length / SUM_LENGTH }, (_, i) => {
    const at = i * SUM_LENGTH;
    return wire[at + SPECIAL] === 0 ? roundedOf(wire, at, PRODUCTS) : wire[at + SPECIAL];
  });
}

/** Checks all of a row before any of it is added. */
function checkTerms(terms: ArrayLike<number>, at: number, length: number): void {
  if (typeof terms !== "object" || terms === null || !Number.isInteger(terms.length)) {
    throw wrongKind(ACTION, "they must be an array of numbers", terms);
  }
  checkInteger(at, "at", ACTION, 0);
  if (at + terms.length > length) {
    const wanted = `terms from ${at} on must have sums: there are ${length} of these`;
    throw wrongPair(ACTION, wanted, terms.length, length);
  }
  for (let i = 0; i < terms.length; i++) {
    const term = terms[i];
    if (typeof term !== "number") throw wrongKind(ACTION, `term ${i} must be a number`, term);
    if (Math.abs(term) >= TOO_LARGE && Number.isFinite(term)) {
      throw wrongValue(ACTION, `term ${i} must be below 2^288 in size`, term);
    }
  }
}

/** The error for what is no sum where one must stand. */
export function noSums(action: string, here: string, came: string): TypeError {
  return refused(
    action,
    `${here} must be what exactSums made, null, or a plain record, array, Map or Set of such`,
    `value is ${came}`,
  );
}

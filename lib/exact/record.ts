/**
 * A channel's two sums without rounding, of values and of products, as they travel: moments are sums of x and of x^2, gradient sums
 * those of dy and of dy * float32(x - mean).
 *
 * [digits of the values, digits of the products, two numbers for what is not finite]. The latter are sums as IEEE 754 has them: 0 as
 * long as all terms are finite, else an infinity or NaN. So wires are added number by number.
 */

import {
  addTo,
  carry,
  MOST_PENDING,
  nearest,
  PRODUCT_DIGITS,
  PRODUCTS,
  roundedOf,
  VALUE_DIGITS,
  VALUES,
  wholeOf,
} from "./digits.ts";

const PRODUCTS_AT = VALUE_DIGITS;
const SPECIAL_AT = PRODUCTS_AT + PRODUCT_DIGITS;
/** Numbers of a channel. */
export const RECORD: number = SPECIAL_AT + 2;

/** Adds a value and a product of two float32 to the record that begins at an index. */
export function addTerms(wire: Float64Array, at: number, value: number, product: number): void {
  if (Number.isFinite(value)) addTo(wire, at, VALUES, value);
  else wire[at + SPECIAL_AT] += value;
  if (Number.isFinite(product)) addTo(wire, at + PRODUCTS_AT, PRODUCTS, product);
  else wire[at + SPECIAL_AT + 1] += product;
}

/** Goes through terms, and makes the carries before the digits have no room for more. */
export function summing(wire: Float64Array, at: number) {
  let pending = 0;
  return (value: number, product: number): void => {
    addTerms(wire, at, value, product);
    if (++pending % MOST_PENDING === 0) carryRecord(wire, at);
  };
}

/** Makes the carries of a record. */
export function carryRecord(wire: Float64Array, at: number): void {
  carry(wire, at, VALUES);
  carry(wire, at + PRODUCTS_AT, PRODUCTS);
}

/** Both sums of a record, each rounded once. */
export function roundedSums(wire: Float64Array, at: number): readonly [number, number] {
  const [value, product] = [wire[at + SPECIAL_AT], wire[at + SPECIAL_AT + 1]];
  return [
    value === 0 ? roundedOf(wire, at, VALUES) : value,
    product === 0 ? roundedOf(wire, at + PRODUCTS_AT, PRODUCTS) : product,
  ];
}

/** Whether all terms of a record were finite. */
export function isFiniteRecord(wire: Float64Array, at: number): boolean {
  return wire[at + SPECIAL_AT] === 0 && wire[at + SPECIAL_AT + 1] === 0;
}

/** The sum of the values as a whole number of units of 2^-160. */
export function wholeSum(wire: Float64Array, at: number): bigint {
  return wholeOf(wire, at, VALUES);
}

/**
 * Mean and m2 of a record of moments, each rounded once: sum x / N, and (N * sum x^2 - (sum x)^2) / N, which is never negative, and
 * 0 for a constant channel.
 */
export function momentsOf(
  wire: Float64Array,
  at: number,
  count: number,
): readonly [mean: number, m2: number] {
  if (!isFiniteRecord(wire, at)) return [wire[at + SPECIAL_AT], NaN];
  const [n, sum] = [BigInt(count), wholeSum(wire, at)];
  const squares = wholeOf(wire, at + PRODUCTS_AT, PRODUCTS);
  // Units: 2^-160 for the sum, its square for the sum of squares.
  return [nearest(sum, n, -160), nearest(n * squares - sum * sum, n, -320)];
}

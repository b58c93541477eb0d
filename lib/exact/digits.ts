/**
 * Sums without rounding: an integer number of the smallest unit, as digits at absolute places.
 *
 * Digit k weighs 2^(32k), wherever the sum stands and whoever adds to it, so that sums of parts are added digit by digit, and their
 * bits depend on no order (Kulisch's accumulator; Demmel and Nguyen 2013 use fewer, pre-rounded bins of the same kind). A digit is
 * a whole number in a float64, whose 53 bits leave room for 2^20 carries that are still to be made.
 */

/** Bits of a digit. */
export const BITS = 32;
const RADIX = 2 ** BITS;
/** Digits that are added before their carries are made; each leaves the room of one bit more. */
export const MOST_PENDING = 2 ** 19;

/** Where the digits of a sum stand: `count` of them, the lowest of which weighs 2^(32 * lowest). */
export interface Places {
  readonly lowest: number;
  readonly count: number;
}

/** Digits of a sum of values and of products, as numbers: a bundler keeps whatever reads a field of a record. */
export const VALUE_DIGITS = 10;
export const PRODUCT_DIGITS = 19;
/** Places of a sum of float32 values: all are multiples of 2^-149, and below 2^128. */
export const VALUES: Places = /* @__PURE__ */ Object.freeze({ lowest: -5, count: VALUE_DIGITS });
/** Places of a sum of products of two float32 values: multiples of 2^-298, below 2^256. */
export const PRODUCTS: Places = /* @__PURE__ */ Object.freeze({
  lowest: -10,
  count: PRODUCT_DIGITS,
});

/** Powers 2^(32k) from the lowest place on, and their inverses: to take a power is slow. */
const LOWEST = -10;
const powers = (sign: 1 | -1) =>
  Float64Array.from({ length: 24 }, (_, i) => 2 ** (sign * BITS * (LOWEST + i)));
const UNITS = /* @__PURE__ */ powers(1);
const SHARES = /* @__PURE__ */ powers(-1);

const bits = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(8));

/** The power of two at or below a positive or negative number, as an exponent; of a subnormal one, that of all. */
function exponentOf(value: number): number {
  bits.setFloat64(0, value);
  return ((bits.getUint16(0) >>> 4) & 0x7ff) - 1023;
}

/**
 * Adds a finite number to the digits that begin at an index. What it has below the lowest place is rounded, to the nearest whole
 * number of units: that depends on the number alone.
 */
export function addTo(
  digits: Float64Array,
  at: number,
  { lowest, count }: Places,
  value: number,
): void {
  const top = lowest + count - 1;
  for (let place = Math.min(Math.floor(exponentOf(value) / BITS), top); value !== 0; place--) {
    if (place <= lowest) {
      digits[at] += Math.round(value * SHARES[lowest - LOWEST]);
      return;
    }
    const digit = Math.trunc(value * SHARES[place - LOWEST]);
    digits[at + place - lowest] += digit;
    value -= digit * UNITS[place - LOWEST];
  }
}

/** Makes the carries: every digit but the highest is between -2^31 and 2^31 then. */
export function carry(digits: Float64Array, at: number, { count }: Places): void {
  for (let i = at; i < at + count - 1; i++) {
    const over = Math.floor(digits[i] / RADIX + 0.5);
    digits[i] -= over * RADIX;
    digits[i + 1] += over;
  }
}

/** The sum as a whole number of units of 2^(32 * lowest). */
export function wholeOf(digits: Float64Array, at: number, { count }: Places): bigint {
  let whole = 0n;
  for (let i = at + count - 1; i >= at; i--) {
    whole = (whole << 32n) + BigInt(digits[i]);
  }
  return whole;
}

/** The float64 nearest to numerator / denominator * 2^exponent, ties to even; the denominator is positive. */
export function nearest(numerator: bigint, denominator: bigint, exponent: number): number {
  if (numerator === 0n) return 0;
  const size = numerator < 0n ? -numerator : numerator;
  // 64 bits or more of the quotient, and a last one that stands for all after them.
  const shift = Math.max(0, 66 - (bitsOf(size) - bitsOf(denominator)));
  const shifted = size << BigInt(shift);
  let quotient = shifted / denominator;
  const more = BigInt(Math.max(0, bitsOf(quotient) - 66));
  const rest = quotient * denominator !== shifted || (quotient >> more) << more !== quotient;
  quotient >>= more;
  const value = scaled(
    Number(quotient * 2n + (rest ? 1n : 0n)),
    Number(more) - 1 - shift + exponent,
  );
  return numerator < 0n ? -value : value;
}

/** A number of about 2^66 times a power of two, which alone may be too small for a float64. */
function scaled(value: number, exponent: number): number {
  return value * 2 ** Math.max(exponent, -1000) * 2 ** Math.min(exponent + 1000, 0);
}

/** A finite number as a whole number of units of 2^-1200. */
export function unitsOf(value: number): bigint {
  if (value === 0) return 0n;
  const isSmall = Math.abs(value) < 2 ** -800;
  const near = isSmall ? value * 2 ** 300 : value;
  const exponent = exponentOf(near);
  return BigInt(near * 2 ** (52 - exponent)) << BigInt((isSmall ? 900 : 1200) + exponent - 52);
}

/** Bits of a positive number, or up to three more. */
function bitsOf(value: bigint): number {
  return 4 * value.toString(16).length;
}

/** The float64 nearest to a sum. */
export function roundedOf(digits: Float64Array, at: number, places: Places): number {
  const { lowest, count } = places;
  let top = count - 1;
  while (top > 1 && digits[at + top] === 0) top--;
  let under = top - 2;
  while (under > 0 && digits[at + under - 1] === 0) under--;
  if (under <= 0) {
    // Three digits: where two of their errors have room in one float64, one addition rounds the sum.
    const digit = (i: number) => i < 0 ? 0 : digits[at + i] * UNITS[lowest + i - LOWEST];
    const [a, b, c] = [digit(top), digit(top - 1), digit(top - 2)];
    const [sum, error] = added(a, b);
    const [rest, lost] = added(error, c);
    if (lost === 0) return sum + rest;
  }
  return nearest(wholeOf(digits, at, places), 1n, BITS * lowest);
}

/** a + b rounded, and by how much (Knuth 1969, two-sum). */
function added(a: number, b: number): readonly [number, number] {
  const sum = a + b;
  const ofB = sum - a;
  return [sum, (a - (sum - ofB)) + (b - ofB)];
}

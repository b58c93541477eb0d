/** Rational numbers by BigInt: what results that claim to be exact are compared with. */

/** A finite float64 in units of 2^-1074, of which it is a whole number. */
export function fractionOf(value: number): bigint {
  const bits = new BigUint64Array(Float64Array.of(value).buffer)[0];
  const exponent = (bits >> 52n) & 0x7ffn;
  const fraction = bits & ((1n << 52n) - 1n);
  const size = exponent === 0n ? fraction : (fraction | 1n << 52n) << (exponent - 1n);
  return bits >> 63n ? -size : size;
}

/** numerator / denominator, where the numerator is a whole number of units of 2^(-1074 * power). */
export interface Ratio {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

export function ratio(numerator: bigint, denominator: bigint, power: number): Ratio {
  return { numerator, denominator: denominator << BigInt(1074 * power) };
}

/** How far a number is from a ratio, in units of the last place of a number of so many digits (53: float64, 24: float32). */
export function distanceInUlps(
  value: number,
  { numerator, denominator }: Ratio,
  digits = 53,
): number {
  if (numerator === 0n) return value === 0 ? 0 : Infinity;
  const size = numerator < 0n ? -numerator : numerator;
  // The exponent of the ratio: 2^e <= size / denominator < 2^(e + 1).
  let e = size.toString(2).length - denominator.toString(2).length;
  if (e >= 0 ? size < denominator << BigInt(e) : size << BigInt(-e) < denominator) e--;
  const lowest = digits === 24 ? -149 : -1074;
  const ulp = Math.max(e - digits + 1, lowest);
  // |value - ratio| / 2^ulp, with 2^-20 to spare.
  const difference = fractionOf(value) * denominator - (numerator << 1074n);
  const distance = difference < 0n ? -difference : difference;
  const shift = BigInt(-1074 - ulp + 20);
  const scaled = shift >= 0n ? distance << shift : distance >> -shift;
  return Number(scaled / denominator) / 2 ** 20;
}

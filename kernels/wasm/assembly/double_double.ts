// Numbers as unevaluated sums of two float64 (Dekker 1971), two channels at a time, each with a bound of its error: whoever rounds one
// asks whether all numbers within the bound round to the same float64.

import { both } from "./pairs";
import { zeros } from "./vectors";

/**
 * What is lost at most, as a share of the sizes of all terms: 20 digits lose 400 * 2^-106 and a few operations on them some more, twice
 * that a square.
 */
const LOSS: f64 = 5.048709793414476e-29; // 2^-94

// @ts-ignore: decorator
@inline
function add(a: v128, b: v128): v128 {
  return f64x2.add(a, b);
}

// @ts-ignore: decorator
@inline
function sub(a: v128, b: v128): v128 {
  return f64x2.sub(a, b);
}

/** What a + b is more than its rounded sum. */
// @ts-ignore: decorator
@inline
function errorOfSum(a: v128, b: v128, sum: v128): v128 {
  const ofB = sub(sum, a);
  return add(sub(a, sub(sum, ofB)), sub(b, ofB));
}

/** The upper half of a number's bits (Veltkamp 1968). */
// @ts-ignore: decorator
@inline
function upper(a: v128): v128 {
  const large = f64x2.mul(a, both(134217729));
  return sub(large, sub(large, a));
}

/** What a * b is more than its rounded product. */
// @ts-ignore: decorator
@inline
function errorOfProduct(a: v128, b: v128, product: v128): v128 {
  const highA = upper(a), lowA = sub(a, highA), highB = upper(b), lowB = sub(b, highB);
  const left = sub(f64x2.mul(highA, highB), product);
  return add(add(add(left, f64x2.mul(highA, lowB)), f64x2.mul(lowA, highB)), f64x2.mul(lowA, lowB));
}

/** Writes [high, low, size] of digits [from, to) of two records, where size bounds all of them together; the first weighs `unit`. */
// @ts-ignore: decorator
@inline
export function sumDigits(one: usize, other: usize, from: i32, to: i32, unit: f64, result: usize): void {
  let high = zeros(), low = zeros(), size = zeros();
  for (let i = from; i < to; i++, unit *= 4294967296) {
    const at = <usize> i << 3;
    const pair = f64x2.replace_lane(f64x2.splat(<f64> load<i64>(one + at)), 1, <f64> load<i64>(other + at));
    const digit = f64x2.mul(pair, both(unit));
    const sum = add(high, digit);
    low = add(low, errorOfSum(high, digit, sum));
    high = sum;
    size = add(size, f64x2.abs(digit));
  }
  v128.store(result, high);
  v128.store(result, low, 16);
  v128.store(result, size, 32);
}

/** high + low, and in lanes of `ok` whether all numbers within the bound round to that. */
// @ts-ignore: decorator
@inline
function round(high: v128, low: v128, bound: v128, result: usize): void {
  const sum = add(high, low), rest = errorOfSum(high, low, sum);
  const above = f64x2.eq(add(sum, add(rest, bound)), sum), below = f64x2.eq(add(sum, sub(rest, bound)), sum);
  v128.store(result, sum);
  v128.store(result, v128.and(above, below), 16);
}

/** Writes [rounded, whether that is certain] of what sumDigits wrote. */
export function roundSum(from: usize, result: usize): void {
  round(v128.load(from), v128.load(from, 16), f64x2.mul(v128.load(from, 32), both(LOSS)), result);
}

/** (high + low) / count, rounded. */
// @ts-ignore: decorator
@inline
function divide(high: v128, low: v128, size: v128, count: v128, result: usize): void {
  const quotient = f64x2.div(high, count), product = f64x2.mul(quotient, count);
  const rest = add(sub(sub(high, product), errorOfProduct(quotient, count, product)), low);
  round(quotient, f64x2.div(rest, count), f64x2.mul(f64x2.div(size, count), both(LOSS)), result);
}

/** Writes [mean, whether that is certain, m2, the same] of the sums of values and of squares. */
export function divideMoments(values: usize, squares: usize, count: f64, result: usize): void {
  const n = both(count), high = v128.load(values), low = v128.load(values, 16), size = v128.load(values, 32);
  divide(high, low, size, n, result);
  // count * squares - sum^2
  const ofSquares = v128.load(squares), product = f64x2.mul(ofSquares, n);
  const productLow = add(errorOfProduct(ofSquares, n, product), f64x2.mul(v128.load(squares, 16), n));
  const square = f64x2.mul(high, high);
  const squareLow = add(errorOfProduct(high, high, square), f64x2.mul(f64x2.mul(both(2), high), low));
  const difference = sub(product, square);
  const rest = add(errorOfSum(product, f64x2.neg(square), difference), sub(productLow, squareLow));
  const bound = add(f64x2.mul(v128.load(squares, 32), n), f64x2.mul(size, size));
  divide(difference, rest, bound, n, result + 32);
}

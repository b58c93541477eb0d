// What sums without rounding come to, each rounded once to float64: whole numbers of 32-bit limbs, of which only those are touched
// that are not 0.

import { PRODUCTS, PRODUCTS_AT, RECORD, specialProduct, specialValue, VALUES } from "./digits";
import { lowPart, wide } from "./pairs";

const VALUE_PLACE: i32 = -160;
const PRODUCT_PLACE: i32 = -320;
const MASK: u64 = 0xffffffff;
/** Bytes of a number of limbs: the longest is a square of sums, of 22. */
const NUMBER: usize = 192;

/** Where a number's limbs that are not 0 lie: limbs [from, to) of those at an address; `negative` is its sign. */
@unmanaged
class Whole {
  from: i32;
  to: i32;
  negative: i32;
  padding: i32;
}

// @ts-ignore: decorator
@inline
function limbOf(limbs: usize, i: i32): u64 {
  return load<u64>(limbs + (<usize> i << 3));
}

// @ts-ignore: decorator
@inline
function setLimb(limbs: usize, i: i32, limb: u64): void {
  store<u64>(limbs + (<usize> i << 3), limb);
}

/** Makes the carries of digits: their size as limbs, one more than there are digits. */
function read(digits: usize, count: i32, limbs: usize, whole: Whole): void {
  let from: i32 = 0, last = count - 1;
  while (from <= last && !limbOf(digits, from)) from++;
  while (last > from && !limbOf(digits, last)) last--;
  let carry: i64 = 0;
  for (let i = from; i <= last; i++) {
    const digit = <i64> limbOf(digits, i) + carry;
    setLimb(limbs, i, <u64> digit & MASK);
    carry = digit >> 32;
  }
  let to = max(last + 1, from);
  // Below 2^63 a digit carries less than 2^31: one limb more has it, and its sign.
  const negative = carry < 0;
  if (carry) setLimb(limbs, to++, <u64> carry & MASK);
  if (negative) {
    let more: u64 = 1;
    for (let i = from; i < to; i++) {
      const limb = (limbOf(limbs, i) ^ MASK) + more;
      setLimb(limbs, i, limb & MASK);
      more = limb >> 32;
    }
  }
  while (to > from && !limbOf(limbs, to - 1)) to--;
  whole.from = from;
  whole.to = to;
  whole.negative = <i32> negative;
}

/** limbs [from, to) / divisor * 2^place, the nearest float64, ties to even. */
function quotient(limbs: usize, from: i32, to: i32, divisor: u64, place: i32): f64 {
  if (from >= to) return 0;
  let i = to, rest: u64 = 0, high: u64 = 0, low: u64 = 0, found: i32 = 0;
  // Three limbs of the quotient from its first one on: 65 bits or more.
  while (found < 3) {
    i--;
    rest = (rest << 32) | (i >= from ? limbOf(limbs, i) : 0);
    let limb = rest;
    if (divisor != 1) {
      limb = rest / divisor;
      rest -= limb * divisor;
    } else rest = 0;
    if (found || limb) found++;
    high = (high << 32) | (low >> 32 & MASK);
    low = (low << 32) | limb;
  }
  let sticky = rest != 0;
  for (let k = i - 1; k >= from && !sticky; k--) sticky = limbOf(limbs, k) != 0;
  // 96 bits in (high, low), of which high has 1 to 32: 64 of them, with the highest one set.
  const left = clz<u64>(high) - 32;
  const right = 32 - left;
  const bits = (high << (32 + left)) | (low >> right);
  if (low & ((<u64> 1 << right) - 1)) sticky = true;
  let size = bits >> 11;
  const under = bits & 0x7ff;
  if (under > 0x400 || (under == 0x400 && (sticky || size & 1))) size++;
  const exponent = 32 * i + <i32> right + 11 + place;
  return <f64> size * reinterpret<f64>(<u64> (exponent + 1023) << 52);
}

/** A sum of values or products, rounded once. */
function rounded(digits: usize, count: i32, place: i32, limbs: usize, whole: Whole): f64 {
  read(digits, count, limbs, whole);
  const size = quotient(limbs, whole.from, whole.to, 1, place);
  return whole.negative ? -size : size;
}

/** count * squares - sum^2 in the limbs of the squares, which are not fewer: it is not negative. */
function spread(squares: usize, own: Whole, count: u64, sum: usize, other: Whole): void {
  const from = min(own.from, 2 * other.from), to = max(own.to + 1, 2 * other.to);
  for (let i = from; own.from > i; i++) setLimb(squares, i, 0);
  for (let i = own.to; i < to; i++) setLimb(squares, i, 0);
  let carry: u64 = 0;
  for (let i = own.from; i <= own.to; i++) {
    const limb = limbOf(squares, i) * count + carry;
    setLimb(squares, i, limb & MASK);
    carry = limb >> 32;
  }
  for (let i = other.from; i < other.to; i++) {
    const factor = limbOf(sum, i);
    let borrow: u64 = 0, k = i + other.from;
    for (let j = other.from; j < other.to; j++, k++) {
      const take = factor * limbOf(sum, j) + borrow;
      const limb = limbOf(squares, k) - (take & MASK);
      setLimb(squares, k, limb & MASK);
      borrow = (take >> 32) + (limb >> 63);
    }
    for (; borrow; k++) {
      const limb = limbOf(squares, k) - (borrow & MASK);
      setLimb(squares, k, limb & MASK);
      borrow = (borrow >> 32) + (limb >> 63);
    }
  }
  own.from = from;
  own.to = to;
  while (own.to > from && !limbOf(squares, own.to - 1)) own.to--;
}

/** Room for two numbers and what is known of them, in the scratch memory of resolveMoments and resolveSums. */
const SECOND: usize = NUMBER;
const FIRST_WHOLE: usize = 2 * NUMBER;
const SECOND_WHOLE: usize = FIRST_WHOLE + 16;

/**
 * Moments [count, mean C, m2 C] behind exact ones [count, records], unless they are there: the mean is sum / count, m2 is
 * (count * squares - sum^2) / count. `scratch` has room for 416 bytes.
 */
export function resolveMoments(moments: usize, channels: u32, scratch: usize): void {
  const records = moments + 8;
  const result = records + <usize> channels * RECORD;
  const count = load<f64>(moments);
  if (load<f64>(result) == count) return;
  store<f64>(result, count);
  const n = <u64> count;
  const sum = changetype<Whole>(scratch + FIRST_WHOLE), squares = changetype<Whole>(scratch + SECOND_WHOLE);
  for (let c: u32 = 0; c < channels; c++) {
    const record = records + <usize> c * RECORD;
    let mean: f64 = 0, m2: f64 = 0;
    if (specialValue(record) != 0) {
      mean = specialValue(record);
      m2 = NaN;
    } else if (n) {
      read(record, VALUES, scratch, sum);
      read(record + PRODUCTS_AT, PRODUCTS, scratch + SECOND, squares);
      mean = quotient(scratch, sum.from, sum.to, n, VALUE_PLACE);
      if (sum.negative) mean = -mean;
      if (squares.from < squares.to) {
        spread(scratch + SECOND, squares, n, scratch, sum);
        m2 = quotient(scratch + SECOND, squares.from, squares.to, n, PRODUCT_PLACE);
      }
    }
    store<f64>(wide(result + 8, c), mean);
    store<f64>(wide(result + 8, channels + c), m2);
  }
}

/**
 * [sumDy C, sumDyXmu C] of exact gradient sums, whose products are about the float32 of the mean: the part of the mean that they do not
 * know is put in here; that of `moments`, 0 where means were float32. `scratch` as above.
 */
export function resolveSums(records: usize, channels: u32, moments: usize, result: usize, scratch: usize): void {
  const whole = changetype<Whole>(scratch + FIRST_WHOLE);
  for (let c: u32 = 0; c < channels; c++) {
    const record = records + <usize> c * RECORD;
    let dy = specialValue(record), product = specialProduct(record);
    if (dy == 0) dy = rounded(record, VALUES, VALUE_PLACE, scratch, whole);
    if (product == 0) product = rounded(record + PRODUCTS_AT, PRODUCTS, PRODUCT_PLACE, scratch, whole);
    if (moments) {
      const low = f64x2.extract_lane(lowPart(v128.load64_splat(wide(moments + 8, c))), 0);
      product -= low * dy;
    }
    store<f64>(wide(result, c), dy);
    store<f64>(wide(result, channels + c), product);
  }
}

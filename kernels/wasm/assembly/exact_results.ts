// What sums without rounding come to, each rounded once to float64: whole numbers of 32-bit limbs. Which digits are not 0 is asked of
// all channels together, so that the loops are as long for each, and branches are as the processor expects them.

import { PRODUCTS, PRODUCTS_AT, RECORD, specialProduct, specialValue, VALUES } from "./digits";
import { divideMoments, roundSum, sumDigits } from "./double_double";
import { lowPart, wide } from "./pairs";
import { zeros } from "./vectors";

const VALUE_PLACE: i32 = -160;
const PRODUCT_PLACE: i32 = -320;
const MASK: u64 = 0xffffffff;
/** The largest count that divides limbs. */
const MOST_VALUES: f64 = 4294967295;
/** Limbs below a number, which are read as 0. */
const PADDING: i32 = 4;
/** Bytes of a number of limbs: the longest is a square of sums, of 22. */
const NUMBER: usize = 240;

/** The digits [from, to) of which a number may have some, how far its limbs go, [from, end), and -1 if it is negative, else 0. */
@unmanaged
class Whole {
  from: i32;
  to: i32;
  end: i32;
  sign: i32;
}

// @ts-ignore: decorator
@inline
function limbOf(limbs: usize, i: i32): u64 {
  return load<u64>(limbs + (<usize> (i + PADDING) << 3));
}

// @ts-ignore: decorator
@inline
function setLimb(limbs: usize, i: i32, limb: u64): void {
  store<u64>(limbs + (<usize> (i + PADDING) << 3), limb);
}

/** Finds the digits [from, to) that are not 0 in all records. */
function find(records: usize, channels: u32, count: i32, whole: Whole): void {
  let from = count, to: i32 = 0;
  for (let i: i32 = 0; i < count; i += 2) {
    let any = zeros();
    const first = records + (<usize> i << 3);
    for (let at = first, end = first + <usize> channels * RECORD; at < end; at += RECORD) any = v128.or(any, v128.load(at));
    const low = i64x2.extract_lane(any, 0) != 0, high = i + 1 < count && i64x2.extract_lane(any, 1) != 0;
    if (low || high) {
      from = min(from, low ? i : i + 1);
      to = high ? i + 2 : i + 1;
    }
  }
  whole.from = from;
  whole.to = max(from, to);
}

/** Makes the carries of digits: their size as limbs, and zeros below. */
function read(digits: usize, limbs: usize, whole: Whole): void {
  const from = whole.from, to = whole.to;
  for (let i: i32 = 1; i <= PADDING; i++) setLimb(limbs, from - i, 0);
  let carry: i64 = 0;
  for (let i = from; i < to; i++) {
    const digit = load<i64>(digits + (<usize> i << 3)) + carry;
    setLimb(limbs, i, <u64> digit & MASK);
    carry = digit >> 32;
  }
  // Below 2^63 a digit carries less than 2^31: one limb more has it, and its sign.
  setLimb(limbs, to, <u64> carry & MASK);
  const sign = carry >> 63;
  let more = <u64> -sign;
  for (let i = from; i <= to; i++) {
    const limb = (limbOf(limbs, i) ^ (<u64> sign & MASK)) + more;
    setLimb(limbs, i, limb & MASK);
    more = limb >> 32;
  }
  let end = to + 1;
  while (end > from && !limbOf(limbs, end - 1)) end--;
  whole.end = end;
  whole.sign = <i32> sign;
}

/** limbs [from, to) / divisor * 2^place, the nearest float64, ties to even. */
function quotient(limbs: usize, from: i32, to: i32, divisor: u64, place: i32): f64 {
  if (from >= to) return 0;
  // Four limbs of the quotient; one of the first two is not 0.
  let q3 = limbOf(limbs, to - 1), q2 = limbOf(limbs, to - 2), q1 = limbOf(limbs, to - 3), q0 = limbOf(limbs, to - 4);
  let rest: u64 = 0;
  if (divisor & (divisor - 1)) {
    rest = q3 % divisor;
    q3 /= divisor;
    let part = (rest << 32) | q2;
    q2 = part / divisor;
    part = ((part - q2 * divisor) << 32) | q1;
    q1 = part / divisor;
    part = ((part - q1 * divisor) << 32) | q0;
    q0 = part / divisor;
    rest = part - q0 * divisor;
  } else place -= <i32> ctz(divisor);
  for (let i = to - 5; i >= from; i--) rest |= limbOf(limbs, i);
  const four = q3 != 0;
  rest |= four ? q0 : 0;
  const high = four ? q3 : q2, low = four ? (q2 << 32) | q1 : (q1 << 32) | q0;
  // 96 bits in (high, low), of which high has 1 to 32: 64 of them, with the highest one set.
  const left = clz(high) - 32, right = 32 - left;
  const bits = (high << (32 + left)) | (low >> right);
  rest |= low & ((<u64> 1 << right) - 1);
  const size = bits >> 11, under = ((bits & 0x7ff) << 1) | <u64> (rest != 0);
  const up = <u64> (under > 0x800) | (<u64> (under == 0x800) & size);
  const exponent = 32 * (to - (four ? 3 : 4)) + <i32> right + 11 + place;
  return <f64> (size + up) * reinterpret<f64>(<u64> (exponent + 1023) << 52);
}

/** count * squares - sum^2 in the limbs of the squares, as [from, end) of them: it is not negative. */
function spread(squares: usize, own: Whole, count: u64, sum: usize, other: Whole, result: Whole): void {
  const from = min(own.from, 2 * other.from), to = max(own.end + 1, 2 * other.end);
  for (let i = from - PADDING; own.from > i; i++) setLimb(squares, i, 0);
  let carry: u64 = 0;
  for (let i = own.from; own.end > i; i++) {
    const limb = limbOf(squares, i) * count + carry;
    setLimb(squares, i, limb & MASK);
    carry = limb >> 32;
  }
  setLimb(squares, own.end, carry);
  for (let i = own.end + 1; i < to; i++) setLimb(squares, i, 0);
  for (let i = other.from; other.end > i; i++) {
    const factor = limbOf(sum, i);
    let borrow: u64 = 0, k = i + other.from;
    for (let j = other.from; other.end > j; j++, k++) {
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
  let end = to;
  while (end > from && !limbOf(squares, end - 1)) end--;
  result.from = from;
  result.end = end;
}

/** Places in the scratch memory of what is resolved: two numbers, what is known of them, and sums of two channels. */
const SECOND: usize = NUMBER;
const FIRST_WHOLE: usize = 2 * NUMBER;
const SECOND_WHOLE: usize = FIRST_WHOLE + 16;
const SPREAD: usize = SECOND_WHOLE + 16;
const FIRST_SUM: usize = SPREAD + 16;
const SECOND_SUM: usize = FIRST_SUM + 48;
const ROUNDED: usize = SECOND_SUM + 48;

/** 2^(32 * digit + place). */
// @ts-ignore: decorator
@inline
function unitOf(digit: i32, place: i32): f64 {
  return reinterpret<f64>(<u64> (32 * digit + place + 1023) << 52);
}

/** Whether a record's digits are all below 2^52, so that float64 has them: they are before very many were added. */
// @ts-ignore: decorator
@inline
function areSmall(digits: usize, whole: Whole): bool {
  let large: u64 = 0;
  for (let i = whole.from; whole.to > i; i++) {
    large |= load<u64>(digits + (<usize> i << 3)) + 0x10000000000000;
  }
  return large >> 53 == 0;
}

/** Begins exact moments: what they come to is not there yet. */
export function beginMoments(moments: usize, channels: u32): void {
  store<f64>(moments + <usize> channels * RECORD, -1, 8);
}

/**
 * Moments [count, mean C, m2 C] behind exact ones [count, records], unless they are there: the mean is sum / count, m2 is
 * (count * squares - sum^2) / count. `scratch` has room for 768 bytes.
 */
export function resolveMoments(moments: usize, channels: u32, scratch: usize): void {
  const records = moments + 8;
  const result = records + <usize> channels * RECORD;
  const count = load<f64>(moments);
  if (load<f64>(result) == count) return;
  store<f64>(result, count);
  if (count == 0) return memory.fill(result + 8, 0, <usize> channels << 4);
  if (!(count <= MOST_VALUES)) { // Of what is no count, as of weights that are none, nothing is known.
    for (let i: u32 = 0; i < 2 * channels; i++) store<f64>(wide(result + 8, i), NaN);
    return;
  }
  const sum = changetype<Whole>(scratch + FIRST_WHOLE), squares = changetype<Whole>(scratch + SECOND_WHOLE);
  find(records, channels, VALUES, sum);
  find(records + PRODUCTS_AT, channels, PRODUCTS, squares);
  const unit = unitOf(sum.from, VALUE_PLACE), ofSquares = unitOf(squares.from, PRODUCT_PLACE);
  const values = scratch + FIRST_SUM, products = scratch + SECOND_SUM, rounded = scratch + ROUNDED;
  for (let c: u32 = 0; c < channels; c += 2) {
    const one = records + <usize> c * RECORD, other = c + 1 < channels ? one + RECORD : one;
    sumDigits(one, other, sum.from, sum.to, unit, values);
    sumDigits(one + PRODUCTS_AT, other + PRODUCTS_AT, squares.from, squares.to, ofSquares, products);
    divideMoments(values, products, count, rounded);
    for (let j: u32 = 0; j < 2 && c + j < channels; j++) {
      const record = j ? other : one, at = rounded + (<usize> j << 3);
      const to = wide(result + 8, c + j);
      const certain = load<u64>(at, 16) & load<u64>(at, 48) & <u64> -(specialValue(record) == 0);
      store<f64>(to, load<f64>(at));
      store<f64>(wide(to, channels), load<f64>(at, 32));
      if (!certain || !areSmall(record, sum) || !areSmall(record + PRODUCTS_AT, squares)) {
        resolveChannel(record, <u64> count, sum, squares, scratch, to, wide(to, channels));
      }
    }
  }
}

/** The same of one channel, in limbs. */
function resolveChannel(
  record: usize, count: u64, sum: Whole, squares: Whole, scratch: usize, toMean: usize, toM2: usize,
): void {
  let mean = specialValue(record), m2: f64 = NaN;
  if (mean == 0) {
    const both = changetype<Whole>(scratch + SPREAD);
    read(record, scratch, sum);
    read(record + PRODUCTS_AT, scratch + SECOND, squares);
    mean = quotient(scratch, sum.from, sum.end, count, VALUE_PLACE);
    mean = sum.sign ? -mean : mean;
    spread(scratch + SECOND, squares, count, scratch, sum, both);
    m2 = quotient(scratch + SECOND, both.from, both.end, count, PRODUCT_PLACE);
  }
  store<f64>(toMean, mean);
  store<f64>(toM2, m2);
}

/** A sum of values or products, rounded once. */
function rounded(digits: usize, place: i32, limbs: usize, whole: Whole): f64 {
  read(digits, limbs, whole);
  const size = quotient(limbs, whole.from, whole.end, 1, place);
  return whole.sign ? -size : size;
}

/** Rounds the sums that stand at an offset of all records, to every place of a plane; what is not finite comes as it is. */
function roundAll(records: usize, channels: u32, offset: usize, count: i32, place: i32, result: usize, scratch: usize): void {
  const whole = changetype<Whole>(scratch + FIRST_WHOLE);
  find(records + offset, channels, count, whole);
  const unit = unitOf(whole.from, place), sums = scratch + FIRST_SUM, to = scratch + ROUNDED;
  for (let c: u32 = 0; c < channels; c += 2) {
    const one = records + <usize> c * RECORD, other = c + 1 < channels ? one + RECORD : one;
    sumDigits(one + offset, other + offset, whole.from, whole.to, unit, sums);
    roundSum(sums, to);
    for (let j: u32 = 0; j < 2 && c + j < channels; j++) {
      const record = j ? other : one, at = to + (<usize> j << 3);
      let sum = offset ? specialProduct(record) : specialValue(record);
      if (sum == 0) {
        sum = load<u64>(at, 16) && areSmall(record + offset, whole)
          ? load<f64>(at)
          : rounded(record + offset, place, scratch, whole);
      }
      store<f64>(wide(result, c + j), sum);
    }
  }
}

/**
 * [sumDy C, sumDyXmu C] of exact gradient sums, whose products are about the float32 of the mean: the part of the mean that they do not
 * know is put into finite ones here; that of `moments`, 0 where means were float32. `scratch` as above.
 */
export function resolveSums(records: usize, channels: u32, moments: usize, result: usize, scratch: usize): void {
  roundAll(records, channels, 0, VALUES, VALUE_PLACE, result, scratch);
  roundAll(records, channels, PRODUCTS_AT, PRODUCTS, PRODUCT_PLACE, wide(result, channels), scratch);
  if (!moments) return;
  for (let c: u32 = 0; c < channels; c++) {
    const low = f64x2.extract_lane(lowPart(v128.load64_splat(wide(moments + 8, c))), 0);
    const product = wide(result, channels + c);
    if (isFinite(load<f64>(product))) store<f64>(product, load<f64>(product) - low * load<f64>(wide(result, c)));
  }
}

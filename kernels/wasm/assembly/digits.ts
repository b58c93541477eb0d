// Sums without rounding: a channel's record of whole digits at absolute places, digit k of weight 2^(32k) in units of 2^-160 for
// values, of 2^-320 for products; lib/exact/record.ts has the same as it travels. [10 digits, 19 digits] are i64 whose carries are
// made late; two float64 follow, which are 0 unless a term was not finite.

/** Digits of the values and of the products; bytes of a record. */
export const VALUES: u32 = 10;
export const PRODUCTS: u32 = 19;
export const PRODUCTS_AT: usize = 80;
const SPECIAL_AT: usize = 232;
export const RECORD: usize = 248;
/** Minus the exponent of the smallest unit. */
const VALUE_UNIT: i32 = 160;
const PRODUCT_UNIT: i32 = 320;

/** Adds a finite number that is a whole one of units of 2^-unit. */
export function addTo(digits: usize, value: f64, unit: i32): void {
  const bits = reinterpret<u64>(value);
  const biased = <i32> (bits >> 52) & 0x7ff;
  if (biased == 0) return; // Only 0: what is smaller than 2^-1022 is no sum of these terms.
  let size = (bits & 0xfffffffffffff) | (1 << 52);
  let shift = biased - 1075 + unit;
  if (shift < 0) {
    size >>= <u64> -shift;
    shift = 0;
  }
  const at = digits + (<usize> (shift >> 5) << 3);
  const left = <u64> (shift & 31);
  const sign = <i64> bits >> 63; // 0 or -1: (n ^ sign) - sign is n or -n.
  const low = <i64> ((size << left) & 0xffffffff);
  const rest = size >> (32 - left);
  store<i64>(at, load<i64>(at) + (low ^ sign) - sign);
  store<i64>(at, load<i64>(at, 8) + (<i64> (rest & 0xffffffff) ^ sign) - sign, 8);
  store<i64>(at, load<i64>(at, 16) + (<i64> (rest >> 32) ^ sign) - sign, 16);
}

/** Adds sums of values to a record, and of products. */
// @ts-ignore: decorator
@inline
export function addValue(record: usize, value: f64): void {
  addTo(record, value, VALUE_UNIT);
}

// @ts-ignore: decorator
@inline
export function addProduct(record: usize, product: f64): void {
  addTo(record + PRODUCTS_AT, product, PRODUCT_UNIT);
}

/** Adds one value and one product, whatever they are. */
export function addTerms(record: usize, value: f64, product: f64): void {
  if (isFinite<f64>(value)) addValue(record, value);
  else store<f64>(record, load<f64>(record, SPECIAL_AT) + value, SPECIAL_AT);
  if (isFinite<f64>(product)) addProduct(record, product);
  else store<f64>(record, load<f64>(record, SPECIAL_AT + 8) + product, SPECIAL_AT + 8);
}

// @ts-ignore: decorator
@inline
export function specialValue(record: usize): f64 {
  return load<f64>(record, SPECIAL_AT);
}

// @ts-ignore: decorator
@inline
export function specialProduct(record: usize): f64 {
  return load<f64>(record, SPECIAL_AT + 8);
}

/** Adds the records of other threads to those of the first. */
export function addRecords(others: usize, threads: u32, channels: u32, records: usize): void {
  const end = records + <usize> channels * RECORD;
  for (let t: u32 = 0; t < threads; t++) {
    for (let record = records; record < end; record += RECORD, others += RECORD) {
      for (let at: usize = 0; at < SPECIAL_AT; at += 8) {
        store<i64>(record + at, load<i64>(record + at) + load<i64>(others + at));
      }
      store<f64>(record, specialValue(record) + specialValue(others), SPECIAL_AT);
      store<f64>(record, specialProduct(record) + specialProduct(others), SPECIAL_AT + 8);
    }
  }
}

/** Records as they travel: digits between -2^31 and 2^31, but for the highest, in float64. */
export function recordsToWire(records: usize, channels: u32, wire: usize): void {
  const end = records + <usize> channels * RECORD;
  for (; records < end; records += RECORD, wire += RECORD) {
    digitsToWire(records, VALUES, wire);
    digitsToWire(records + PRODUCTS_AT, PRODUCTS, wire + PRODUCTS_AT);
    v128.store(wire, v128.load(records, SPECIAL_AT), SPECIAL_AT);
  }
}

function digitsToWire(digits: usize, count: u32, wire: usize): void {
  let carry: i64 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const at = <usize> i << 3;
    let digit = load<i64>(digits + at) + carry;
    carry = (digit + 0x80000000) >> 32;
    if (i + 1 < count) digit -= carry << 32;
    store<f64>(wire + at, <f64> digit);
  }
}

/** The way back. */
export function recordsFromWire(wire: usize, channels: u32, records: usize): void {
  const end = records + <usize> channels * RECORD;
  for (; records < end; records += RECORD, wire += RECORD) {
    for (let at: usize = 0; at < SPECIAL_AT; at += 8) store<i64>(records + at, <i64> load<f64>(wire + at));
    v128.store(records, v128.load(wire, SPECIAL_AT), SPECIAL_AT);
  }
}

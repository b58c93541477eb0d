// Where the bits of a strip's terms may lie, from what a look over it has seen, and so how it is summed (exact_sums.ts).

/** How many bits the elements of a strip, 1,024 at most, add to a sum. */
const GROWTH: i32 = 10;
/** Bits of a float64, and those below M that a sum may have: one less, as M is 1.5 * 2^k, and one for the sign. */
const DIGITS: i32 = 53;
const UNDER: i32 = DIGITS - 2;
/** Bits of a float32; by how much exponents may differ for values and products, in one sum and two, in two sums and three. */
const SPAN: i32 = 24;
const VALUES_ALONE: i32 = DIGITS - GROWTH - SPAN;
const VALUES_TWICE: i32 = UNDER + 1 + DIGITS - 2 * GROWTH - SPAN;
const PRODUCTS_TWICE: i32 = UNDER + 1 + DIGITS - 2 * GROWTH - 2 * SPAN;
const PRODUCTS_THRICE: i32 = PRODUCTS_TWICE + UNDER + 1 - GROWTH;

/** Places in the scratch memory of a strip: ranges, numbers M, sums, means, a guess, masks; its factors, weights, and what these choose from. */
export const RANGES: usize = 0;
export const M_PRODUCTS: usize = 64;
export const M_RESTS: usize = 96;
export const M_VALUES: usize = 128;
export const TOTALS: usize = 160;
export const HIS: usize = 320;
export const GUESS: usize = 336;
const GUESSED: usize = 352;
export const SIZES: usize = 368;
export const ONES: usize = 384;
export const FACTORS: usize = 448;
/** From a factor to its terms, and on to weights, and to all terms that there are. */
export const TERMS: usize = 4096;
export const WEIGHTS: usize = 2 * TERMS;
export const ALL_TERMS: usize = 3 * TERMS;

/** By how much the exponent of the largest product may grow from one strip to the next before a guess is wrong. */
const SLACK: i32 = 4;

export const FAST: u32 = 0;
export const WIDE: u32 = 1;
export const SLOW: u32 = 2;

/** Exponents of bits of sizes, as float32 has them; that of subnormal numbers is 1. */
// @ts-ignore: decorator
@inline
function exponents(bits: v128): v128 {
  return i32x4.max_s(i32x4.shr_u(bits, 23), i32x4.splat(1));
}

/** Those of the smallest numbers but 0, of which 1 was taken; where all are 0, the largest ones. */
// @ts-ignore: decorator
@inline
function lowest(least: v128, high: v128): v128 {
  const low = exponents(i32x4.add(least, i32x4.splat(1)));
  return v128.bitselect(high, low, i32x4.eq(least, i32x4.splat(-1)));
}

/** Whether any lane is larger. */
// @ts-ignore: decorator
@inline
function exceeds(lanes: v128, most: i32): bool {
  return v128.any_true(i32x4.gt_s(lanes, i32x4.splat(most)));
}

/** Four numbers 1.5 * 2^exponent. */
// @ts-ignore: decorator
@inline
function storeLarge(at: usize, exponent: v128): void {
  const biased = i32x4.add(exponent, i32x4.splat(1023)), point = i64x2.splat(1 << 51);
  v128.store(at, v128.or(i64x2.shl(i64x2.extend_low_i32x4_u(biased), 52), point));
  v128.store(at, v128.or(i64x2.shl(i64x2.extend_high_i32x4_u(biased), 52), point), 16);
}

/** Chooses how a strip is summed, and the numbers M of each lane, from what was seen of it. */
// @ts-ignore: decorator
@inline
export function plan(work: usize): u32 {
  forget(work);
  const high = exponents(v128.load(work, RANGES)), highG = exponents(v128.load(work, RANGES + 32));
  const values = i32x4.sub(highG, lowest(v128.load(work, RANGES + 48), highG));
  const products = i32x4.add(i32x4.sub(high, lowest(v128.load(work, RANGES + 16), high)), values);
  const tooMuch = exceeds(i32x4.max_s(high, highG), 254);
  if (tooMuch || exceeds(values, VALUES_TWICE) || exceeds(products, PRODUCTS_THRICE)) return SLOW;
  // Sizes are below 2^(exponent - 126), and all together 2^GROWTH times that: the sum stays next to M.
  const value = i32x4.add(highG, i32x4.splat(GROWTH + 1 - 126));
  const product = i32x4.add(value, i32x4.sub(high, i32x4.splat(126)));
  storeLarge(work + M_PRODUCTS, product);
  if (!exceeds(values, VALUES_ALONE) && !exceeds(products, PRODUCTS_TWICE)) {
    guess(work, i32x4.add(high, highG));
    return FAST;
  }
  storeLarge(work + M_RESTS, i32x4.add(product, i32x4.splat(GROWTH - UNDER - 1)));
  storeLarge(work + M_VALUES, value);
  return WIDE;
}

/** Guesses from exponents of largest products that those of the next strip are about as large: one M for all of its lanes. */
// @ts-ignore: decorator
@inline
function guess(work: usize, high: v128): void {
  const pair = i32x4.max_s(high, v128.shuffle<u64>(high, high, 1, 0));
  const most = max(i32x4.extract_lane(pair, 0), i32x4.extract_lane(pair, 1)) + SLACK;
  store<i32>(work, most, GUESSED);
  const exponent = <u64> (most + GROWTH + 1 - 252 + 1023);
  v128.store(work, i64x2.splat(exponent << 52 | 1 << 51), GUESS);
}

export function forget(work: usize): void {
  store<i32>(work, 0, GUESSED);
  v128.store(work, i32x4.splat(0x7fffffff), SIZES);
  v128.store(work, i32x4.splat(-1), ONES);
}

export function isGuessed(work: usize): bool {
  return load<i32>(work, GUESSED) != 0;
}

/** Whether what was seen of a strip, as it was summed by the guess, has lost nothing. */
// @ts-ignore: decorator
@inline
export function isRight(work: usize): bool {
  const guessed = i32x4.splat(load<i32>(work, GUESSED));
  const least = v128.load(work, RANGES + 16), leastG = v128.load(work, RANGES + 48);
  const high = exponents(v128.load(work, RANGES)), highG = exponents(v128.load(work, RANGES + 32));
  const lowG = lowest(leastG, highG), low = i32x4.add(lowest(least, high), lowG);
  // Where a factor is 0 everywhere, so are the products.
  const none = v128.or(i32x4.eq(least, i32x4.splat(-1)), i32x4.eq(leastG, i32x4.splat(-1)));
  const above = i32x4.sub(i32x4.add(high, highG), guessed);
  const below = i32x4.sub(v128.andnot(i32x4.sub(guessed, low), none), i32x4.splat(PRODUCTS_TWICE));
  const values = i32x4.sub(i32x4.sub(highG, lowG), i32x4.splat(VALUES_ALONE));
  const special = i32x4.sub(i32x4.max_s(high, highG), i32x4.splat(254));
  return !exceeds(i32x4.max_s(i32x4.max_s(above, below), i32x4.max_s(values, special)), 0);
}

/** Makes the four lanes one, whose range is that of all. */
export function unite(work: usize): void {
  for (let at: usize = 0; at < 64; at += 32) {
    const most = max(max(load<u32>(work + at), load<u32>(work + at, 4)), max(load<u32>(work + at, 8), load<u32>(work + at, 12)));
    const low = work + at + 16;
    const least = min(min(load<u32>(low), load<u32>(low, 4)), min(load<u32>(low, 8), load<u32>(low, 12)));
    v128.store(work + at, i32x4.splat(most));
    v128.store(low, i32x4.splat(least));
  }
}

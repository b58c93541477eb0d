// How a matrix is walked whose rows hold lanes of many channels. Every lane has numbers of its own (sums, coefficients), which
// take more loads and stores than the elements do; so some rows share them.
//
// Where caches deliver the elements, which is for the host to know: a block of some rows, one strip of a cache line after
// another, the strip's numbers in registers ([256, 128]: 2.3 instead of 4.1 us to normalize). Memory wants ascending streams instead: two rows that lie so
// close that they are one stream, or else two rows half the matrix apart. (Two neighbours of 1 KiB: 2.8 ms where one row at
// a time takes 1.2; strips: 4.)

import { bytes } from "./vectors";

/** Lanes of a strip, one cache line; of half of one; and of a last one of three vectors, which is all that three channels have. */
export const STRIP: u32 = 16;
export const HALF_STRIP: u32 = 8;
export const SHORT_STRIP: u32 = 12;

/** Rows of a block, fewest and most, and how many bytes of a tensor it takes where they are short: a third of a first-level cache. */
const FEWEST_ROWS: u32 = 8;
const MOST_ROWS: u32 = 32;
const BLOCK: usize = 16384;
/** Most rows that are summed in registers: longer sums lose digits ([64, 3, 224, 224] at a mean of 1e3: y off by 5.8e-7 with 32). */
export const MOST_SUMMED: u32 = 16;

/**
 * Rows of a block: the more there are, the less often a strip's numbers are loaded and stored ([256, 128], gradients: 5.8 us with
 * 16 rows, 7.7 with 4); but whole pages apart they displace each other in the first cache ([392, 2048]: 0.24 ms with 8 rows, 0.37
 * with 32).
 */
// @ts-ignore: decorator
@inline
export function rowsOfBlock(period: u32): u32 {
  return max(FEWEST_ROWS, min(MOST_ROWS, <u32> (BLOCK / bytes(period))));
}

/** Bytes of a row up to which it and the next one are one stream. */
const NARROW: usize = 512;

/** How many rows further the second row of a pair lies. */
// @ts-ignore: decorator
@inline
export function distanceOfPairs(rows: u32, period: u32): u32 {
  return bytes(period) <= NARROW ? 1 : rows / 2;
}

/** The first row of a pair; a last row that no pair has is the last one of the matrix. */
// @ts-ignore: decorator
@inline
export function rowOfPair(pair: u32, distance: u32): u32 {
  return distance == 1 ? 2 * pair : pair;
}

/**
 * How the elements of each dtype lie in memory, and how many a shape has.
 *
 * @module
 */

import type { StoredArray, StoredDType } from "./stored_array.ts";

/** How elements of one dtype lie in memory. */
export interface Elements {
  /** Bytes of one element. */
  readonly size: number;
  /** The class of an array of them. */
  readonly array: new (buffer: ArrayBuffer) => StoredArray["data"];
}

/** The dtypes, in the order of their tensors in a file that is written: wide elements first, so that all are aligned. */
export const DTYPES: ReadonlyMap<string, Elements> = new Map<StoredDType, Elements>([
  ["I64", { size: 8, array: BigInt64Array }],
  ["F64", { size: 8, array: Float64Array }],
  ["F32", { size: 4, array: Float32Array }],
  ["I32", { size: 4, array: Int32Array }],
  ["BF16", { size: 2, array: Uint16Array }],
  ["F16", { size: 2, array: Uint16Array }],
  ["U8", { size: 1, array: Uint8Array }],
  ["BOOL", { size: 1, array: Uint8Array }],
]);

/**
 * Multiplies extents. Those that are 0 count last, so that a shape is too large or not whatever their order.
 *
 * @param shape extents, integers >= 0
 * @returns the number of elements; infinity where the others' product is over 2^53 - 1
 */
export function countElements(shape: readonly number[]): number {
  // Rounding cannot bring a product back under the limit: no factor is below 1.
  const product = shape.reduce((product, extent) => product * (extent || 1), 1);
  if (product > Number.MAX_SAFE_INTEGER) return Infinity;
  return shape.includes(0) ? 0 : product;
}

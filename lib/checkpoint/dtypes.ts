/** How the elements of each dtype lie in memory, and how many a shape has. */

import type { StoredArray, StoredDType } from "./stored_array.ts";

/** How elements of one dtype lie in memory. */
export interface Elements {
  readonly bits: number;
  /** The class of an array of them, or of their bytes. */
  readonly array: new (buffer: ArrayBuffer) => StoredArray["data"];
  /** Whether nothing here knows what they mean, so that they come and go as bytes. */
  readonly opaque: boolean;
}

const known = (array: Elements["array"] & { readonly BYTES_PER_ELEMENT: number }): Elements => ({
  ...{ bits: 8 * array.BYTES_PER_ELEMENT, array, opaque: false },
});

const opaque = (bits: number): Elements => ({ bits, array: Uint8Array, opaque: true });

/** The dtypes in the order of their tensors in a file, as in the reference implementation: wide first, so all are aligned. */
export const DTYPES: ReadonlyMap<string, Elements> = new Map<StoredDType, Elements>([
  ["U64", opaque(64)],
  ["I64", known(BigInt64Array)],
  ["F64", known(Float64Array)],
  ["C64", opaque(64)],
  ["F32", known(Float32Array)],
  ["U32", opaque(32)],
  ["I32", known(Int32Array)],
  ["BF16", known(Uint16Array)],
  ["F16", known(Uint16Array)],
  ["U16", opaque(16)],
  ["I16", opaque(16)],
  ["F8_E5M2FNUZ", opaque(8)],
  ["F8_E4M3FNUZ", opaque(8)],
  ["F8_E8M0", opaque(8)],
  ["F8_E4M3", opaque(8)],
  ["F8_E5M2", opaque(8)],
  ["I8", opaque(8)],
  ["U8", known(Uint8Array)],
  ["F6_E3M2", opaque(6)],
  ["F6_E2M3", opaque(6)],
  ["F4", opaque(4)],
  ["BOOL", known(Uint8Array)],
]);

/** Multiplies extents. Those that are 0 count last, so that a shape is too large or not whatever their order. */
export function countElements(shape: readonly number[]): number {
  // Rounding cannot bring a product back under the limit: no factor is below 1.
  const product = shape.reduce((product, extent) => product * (extent || 1), 1);
  if (product > Number.MAX_SAFE_INTEGER) return Infinity;
  return shape.includes(0) ? 0 : product;
}

/** Counts the bytes of elements. */
export function countBytes(count: number, { bits }: Elements): number {
  return count * (bits / 8);
}

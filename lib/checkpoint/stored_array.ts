/** Arrays as files hold them: a dtype, a shape and the elements, without a device; and how those of each dtype lie in memory. */

/** How a checkpoint stores elements, in the names of safetensors. */
export type StoredDType = StoredArray["dtype"];

/** An array of a checkpoint: elements in row-major order, the last axis fastest; a scalar has shape `[]`. */
export type StoredArray =
  | Stored<"F64", Float64Array<ArrayBuffer>>
  | Stored<"F32", Float32Array<ArrayBuffer>>
  /** IEEE 754 half precision, as its 16 bits. */
  | Stored<"F16", Uint16Array<ArrayBuffer>>
  /** The upper half of a float32, as its 16 bits. */
  | Stored<"BF16", Uint16Array<ArrayBuffer>>
  | Stored<"I64", BigInt64Array<ArrayBuffer>>
  | Stored<"I32", Int32Array<ArrayBuffer>>
  | Stored<"U8", Uint8Array<ArrayBuffer>>
  /** A byte each; 0 is false, anything else true. */
  | Stored<"BOOL", Uint8Array<ArrayBuffer>>
  /** Elements that nothing here computes with: their bytes as they lie in the file. */
  | Stored<OpaqueDType, Uint8Array<ArrayBuffer>>;

/** Dtypes that files may have, and no model of this library. */
export type OpaqueDType =
  | "U64"
  | "U32"
  | "U16"
  | "I16"
  | "I8"
  | "C64"
  | "F8_E4M3"
  | "F8_E5M2"
  | "F8_E8M0"
  | "F8_E4M3FNUZ"
  | "F8_E5M2FNUZ"
  | "F6_E2M3"
  | "F6_E3M2"
  | "F4";

/** Elements of one dtype. */
export interface Stored<D extends string, V> {
  /** How the elements are stored. */
  readonly dtype: D;
  /** Extents, each an integer >= 0. */
  readonly shape: readonly number[];
  /** As many elements as the extents' product, or their bytes. */
  readonly data: V;
}

/** Named arrays, in the order in which they were found or are to be shown; PyTorch calls it a state dict. */
export type StateDict = ReadonlyMap<string, StoredArray>;

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

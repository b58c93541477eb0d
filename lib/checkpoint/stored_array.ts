/** Arrays as files hold them: a dtype, a shape and the elements, without a device. */

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

/** Elements of any dtype as float32. */

import { fromHalf } from "../bits.ts";
import { checkStored } from "./given.ts";
import { DTYPES, type StoredArray } from "./stored_array.ts";
import { refused } from "../words.ts";

/**
 * Reads an array's elements as float32.
 *
 * F32, F16 and BF16 keep their values, F64, I64 and I32 are rounded to the nearest, U8 is exact, BOOL gives 0 and 1.
 *
 * @param array the array; it is not changed
 * @returns a new array of as many elements
 * @throws TypeError or RangeError for what is no stored array, or one of bytes
 *
 * @example
 * ```ts
 * import { toFloat32 } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const half = { dtype: "F16", shape: [2], data: Uint16Array.of(0x3c00, 0xc000) } as const;
 * assert.deepEqual(toFloat32(half), Float32Array.of(1, -2));
 * ```
 */
export function toFloat32(array: StoredArray): Float32Array<ArrayBuffer> {
  const action = "read the array as float32";
  checkStored(array, "the array", action);
  const { dtype, data } = array;
  if (DTYPES.get(dtype)?.opaque) {
    const names = [...DTYPES].filter(([, { opaque }]) => !opaque).map(([name]) => name);
    const wanted = `its dtype must be one of ${names.join(" ")}`;
    throw refused(action, wanted, `value is ${dtype}, whose data are bytes`);
  }
  switch (dtype) {
    case "F16":
      return Float32Array.from(data, fromHalf);
    case "BF16":
      return new Float32Array(Uint32Array.from(data, (bits) => bits << 16).buffer);
    case "I64":
      return Float32Array.from(data, roundToFloat32);
    case "BOOL":
      return Float32Array.from(data, (byte) => byte === 0 ? 0 : 1);
    default:
      return new Float32Array(data as Exclude<typeof data, BigInt64Array | BigUint64Array>);
  }
}

/** Rounds once, where float64 would round before: bits below its last place break ties, which one sticky bit can do too. */
function roundToFloat32(value: bigint): number {
  const size = value < 0n ? -value : value;
  if (size < 2n ** 53n) return Math.fround(Number(value));
  const sticky = (size & 0xffffn) === 0n ? 0n : 0x10000n;
  const kept = Number((size >> 16n << 16n) | sticky);
  return Math.fround(value < 0n ? -kept : kept);
}

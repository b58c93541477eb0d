/** Arrays of the reference device: handles, and what stands behind them. */

import { DeviceError } from "../errors.ts";
import type { ArrayInfo, DType } from "../tensor.ts";
import type { WireFormat } from "../wire.ts";

/** An array of a `referenceDevice`. Opaque: read it with the device's `download`. */
export interface ReferenceArray {
  /** Sets it apart from the arrays of other kinds of device, for the type checker. */
  readonly device: "reference";
}

type Elements = Float32Array | Float16Array;

/** Moments or gradient sums, which are kept as they travel. */
interface Statistic {
  readonly format: WireFormat;
  readonly wire: Float64Array<ArrayBuffer>;
}

/** Handles and what stands behind them; whoever reads one says what it must hold, so that no loop gets another length. */
export function createStore() {
  const live = new WeakMap<ReferenceArray, Elements | Statistic>();
  const freed = new WeakSet<ReferenceArray>();
  const float16 = typeof Float16Array === "function";

  const handle = (contents: Elements | Statistic): ReferenceArray => {
    const array: ReferenceArray = Object.freeze({ device: "reference" });
    live.set(array, contents);
    return array;
  };
  const refuse = (why: string): never => {
    throw new TypeError(`Cannot use the array as ${why}`);
  };
  const find = (array: ReferenceArray): Elements | Statistic => {
    const lost = "it must be one of this device: it is another device's, or none";
    return live.get(array) ?? refuse(freed.has(array) ? "it was already freed" : lost);
  };
  const checkLength = (length: number, wanted = length): void => {
    if (length !== wanted) refuse(`it must hold ${wanted} values: current length is ${length}`);
  };
  const read = (array: ReferenceArray, length?: number, dtype?: DType): Elements => {
    const contents = find(array);
    if (!ArrayBuffer.isView(contents)) {
      return refuse(`elements of a tensor or a vector: it holds ${contents.format.name}`);
    }
    checkLength(contents.length, length);
    const own = dtypeOf(contents);
    if (dtype === undefined || own === dtype) return contents;
    return refuse(`its elements must be ${dtype}: current dtype is ${own}`);
  };
  const readWire = (array: ReferenceArray, format?: WireFormat, length?: number): Statistic => {
    const contents = find(array);
    const name = kindOf(array);
    if (ArrayBuffer.isView(contents) || (format && name !== format.name)) {
      const held = name ?? "the elements of a tensor or a vector";
      return refuse(`${format?.name ?? "statistics"}: it holds ${held}`);
    }
    checkLength(contents.wire.length, length);
    return contents;
  };
  const dtypeOf = (values: Elements): DType =>
    float16 && values instanceof Float16Array ? "float16" : "float32";
  const allocate = (length: number, dtype: DType): Elements => {
    if (dtype === "float32") return new Float32Array(length);
    if (float16) return new Float16Array(length);
    throw new DeviceError(
      "Cannot make a float16 array as this runtime has no Float16Array: use float32 or a newer runtime",
      "unsupported",
    );
  };
  const describe = (array: ReferenceArray): ArrayInfo => {
    const contents = find(array);
    return ArrayBuffer.isView(contents)
      ? { length: contents.length, dtype: dtypeOf(contents) }
      : { length: contents.wire.length, dtype: "float32" };
  };
  const kindOf = (array: ReferenceArray): WireFormat["name"] | null => {
    const contents = find(array);
    return ArrayBuffer.isView(contents) ? null : contents.format.name;
  };
  const owns = (value: unknown): value is ReferenceArray => live.has(value as ReferenceArray);
  const free = (...arrays: ReferenceArray[]): void => {
    arrays.forEach(find);
    for (const array of arrays) {
      live.delete(array);
      freed.add(array);
    }
  };
  return { handle, read, readWire, kindOf, allocate, describe, owns, free, float16 };
}

/** Tensors: an array of some device with the logical shape `(N, C, ...spatial)` and the way it lies in memory. */

import { checkHandle, checkOptions } from "./check_effects.ts";
import { checkOneOf } from "./check_value.ts";
import { listed, mistaken, refused, shown, wrongKind, wrongPair, wrongValue } from "./words.ts";

/** How elements are stored; arithmetic is never narrower than float32 whatever the storage. */
export type DType = "float32" | "float16";

/**
 * How a logical `(N, C, ...spatial)` lies in memory: `"channelsFirst"` as written (NCHW), `"channelsLast"` with the
 * channels fastest (NHWC).
 */
export type Format = "channelsFirst" | "channelsLast";

const DTYPES: readonly DType[] = ["float32", "float16"];
/** All formats. */
export const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];

/** Elements on a device, with their meaning. A plain record: build one with {@linkcode tensor}. */
export interface Tensor<A> {
  /** The elements, on the device that made them. */
  readonly data: A;
  /** The logical shape `(N, C, ...spatial)`, whatever the format. */
  readonly shape: readonly number[];
  /** How the elements are stored. */
  readonly dtype: DType;
  /** The order of the elements in memory. */
  readonly format: Format;
}

/** Options of {@linkcode tensor}. */
export interface TensorOptions {
  /** Storage of the elements; `"float32"` by default. */
  readonly dtype?: DType;
  /** Order in which `values` lie; `"channelsFirst"` by default. */
  readonly format?: Format;
}

/** What an array holds. */
export interface ArrayInfo {
  /** Number of elements. */
  readonly length: number;
  /** How they are stored. */
  readonly dtype: DType;
}

/** The part of a device that can tell what an array holds. */
export interface Describing<A> {
  /** Length and storage of a live array; throws a TypeError for any other value. */
  readonly describe: (array: A) => ArrayInfo;
}

/** The three extents that normalization sees: samples, channels, and the product of the spatial extents. */
export interface Extents {
  /** Samples N on this rank. */
  readonly batch: number;
  /** Channels C. */
  readonly channels: number;
  /** Product of the spatial extents; 1 for `(N, C)`. */
  readonly inner: number;
}

/**
 * Puts numbers onto a device as a tensor.
 *
 * @param device where the tensor shall live
 * @param values the elements in memory order (that of `format`); numbers are rounded to float32, then to `dtype`
 * @param shape the logical shape `(N, C, ...spatial)`, any rank >= 2; extents may be 0, channels may not
 * @returns a frozen tensor that owns its array
 * @throws TypeError where shape and values do not fit, RangeError for an impossible extent, DeviceError where the
 * device has no float16
 *
 * @example Two samples of one 2x1 image in three channels, channels fastest
 * ```ts
 * import { referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [2, 3, 2, 1], {
 *   format: "channelsLast",
 * });
 * console.assert(x.dtype === "float32");
 * ```
 */
export function tensor<A>(
  device: { readonly upload: (values: Float32Array, dtype: DType) => A },
  values: ArrayLike<number>,
  shape: readonly number[],
  options: TensorOptions = {},
): Tensor<A> {
  const action = "make the tensor";
  checkHandle(device, "upload", action);
  checkOptions(options, ["dtype", "format"], action);
  const { dtype = "float32", format = "channelsFirst" } = options;
  checkLayout({ shape, dtype, format }, action);
  const wanted = elements(shape);
  if (typeof values?.length !== "number") {
    throw wrongKind(action, "values must be an array of numbers", values);
  }
  if (values.length !== wanted) {
    const needs = `shape ${listed(shape)} needs ${wanted} values`;
    throw wrongKind(action, needs, values.length, "number of values");
  }
  const floats = values instanceof Float32Array ? values : Float32Array.from(values);
  const data = device.upload(floats, dtype);
  return tensorLike({ data, shape, dtype, format }, data);
}

/** Makes a tensor of memory that somebody else owns, on a device that can. */
export function adoptTensor<A>(
  device: { readonly adopt?: (memory: unknown, info: ArrayInfo) => A },
  memory: unknown,
  shape: readonly number[],
  { dtype = "float32", format = "channelsFirst" }: TensorOptions,
): Tensor<A> {
  const action = "wrap the memory";
  checkLayout({ shape, dtype, format }, action);
  if (!device?.adopt) {
    throw refused(action, "the device must be able to use memory of others", "one is not");
  }
  const data = device.adopt(memory, { length: elements(shape), dtype });
  return tensorLike({ data, shape, dtype, format }, data);
}

/**
 * Reads a tensor back.
 *
 * @param device the device that the tensor lives on
 * @param tensor the tensor to read; it is not changed
 * @returns its elements in memory order (that of `tensor.format`), as float32 for float16 tensors too
 * @throws TypeError where the tensor is malformed, belongs to another device or was freed
 *
 * @example
 * ```ts
 * import { referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 3, 4], [2, 2]);
 * assert.deepEqual(await toArray(device, x), Float32Array.of(1, 2, 3, 4));
 * ```
 */
export async function toArray<A>(
  device: Describing<A> & {
    readonly download: (array: A) => Promise<Float32Array<ArrayBuffer>>;
  },
  tensor: Tensor<A>,
): Promise<Float32Array<ArrayBuffer>> {
  const action = "read the tensor";
  checkHandle(device, "download", action);
  checkTensor(device, tensor, action);
  return await device.download(tensor.data);
}

/**
 * Groups the extents of a logical shape by their role in normalization.
 *
 * @param shape a checked logical shape `(N, C, ...spatial)`
 * @returns samples, channels and the product of the spatial extents
 */
export function extents(shape: readonly number[]): Extents {
  let inner = 1;
  for (let i = 2; i < shape.length; i++) inner *= shape[i];
  return { batch: shape[0], channels: shape[1], inner };
}

/** Counts the values of each channel. */
export function valuesPerChannel({ shape }: Tensor<unknown>): number {
  const { batch, inner } = extents(shape);
  return batch * inner;
}

/** Checks that a tensor is well-formed and lives on the device. */
export function checkTensor<A>(
  device: Describing<A>,
  tensor: Tensor<A>,
  action: string,
  name = "tensor",
): void {
  if (typeof tensor !== "object" || tensor === null || !("data" in tensor)) {
    const late = tensor === undefined && "; was it a field of a promise that was not awaited?";
    const came = `value is ${shown(tensor)}${late || mistaken(tensor)}`;
    throw refused(action, `the ${name} must be a tensor`, came);
  }
  checkLayout(tensor, action, name);
  const { length, dtype } = describe(device, tensor.data, action, `the ${name}`);
  const wanted = elements(tensor.shape);
  if (length !== wanted) {
    const need = `the ${name}'s shape ${listed(tensor.shape)} needs an array of ${wanted} elements`;
    throw wrongKind(action, need, length, "length");
  }
  if (dtype === tensor.dtype) return;
  throw wrongPair(action, `the ${name}'s dtype must be that of its array`, tensor.dtype, dtype);
}

/** Describes an array, and where it is not usable says whose array it is. */
export function describe<A>(
  device: Describing<A>,
  array: A,
  action: string,
  name: string,
): ArrayInfo {
  try {
    return device.describe(array);
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new TypeError(`Cannot ${action} with ${name}: ${cause.message}`, { cause });
  }
}

/** Checks that a shape, a storage and a memory order can be a tensor's. */
export function checkLayout(
  { shape, dtype, format }: Omit<Tensor<unknown>, "data">,
  action: string,
  name = "tensor",
): void {
  if (!Array.isArray(shape) || shape.length < 2) {
    const wanted = `the ${name} must have a shape (N, C, ...spatial) of rank >= 2`;
    throw wrongKind(action, wanted, shape, "shape");
  }
  if (!areExtents(shape)) {
    throw wrongValue(action, `every extent of the ${name} must be an integer >= 0`, shape, "shape");
  }
  if (shape[1] === 0) {
    throw wrongValue(action, `the ${name} must have at least one channel`, shape, "shape");
  }
  if (!DTYPES.includes(dtype)) checkOneOf(dtype, DTYPES, `the ${name}'s dtype`, action);
  if (!FORMATS.includes(format)) checkOneOf(format, FORMATS, `the ${name}'s format`, action);
}

/** Looks at holes of a sparse array too, which every() skips. */
function areExtents(shape: readonly unknown[]): boolean {
  for (let i = 0; i < shape.length; i++) {
    if (!Number.isSafeInteger(shape[i]) || (shape[i] as number) < 0) return false;
  }
  return true;
}

/** Counts the elements of a shape. */
export function elements(shape: readonly number[]): number {
  let product = 1;
  for (let i = 0; i < shape.length; i++) product *= shape[i];
  return product;
}

/** Tells whether two shapes are the same. A loop: frozen arrays, as shapes are, have slow methods. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return a.length === b.length;
}

/** A tensor that nobody can change: the given one where it is frozen, as ours are, or a copy. */
export function fixed<A>(tensor: Tensor<A>): Tensor<A> {
  const isFixed = Object.isFrozen(tensor) && Object.isFrozen(tensor.shape);
  return isFixed ? tensor : tensorLike(tensor, tensor.data);
}

/** Gives an array the meaning of another tensor: its shape, dtype and format. Frozen. */
export function tensorLike<A>({ shape, dtype, format }: Tensor<A>, data: A): Tensor<A> {
  const own = Object.isFrozen(shape) ? shape : Object.freeze([...shape]);
  return Object.freeze({ data, shape: own, dtype, format });
}

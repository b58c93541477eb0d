/**
 * Trees of arrays, such as gradients, states and whole models: taken apart into arrays and numbers, and put together
 * again.
 */

import { compose } from "../ownership.ts";
import type { Device } from "../device.ts";
import { checkTensor, describe, type DType, type Tensor, tensorLike } from "../tensor.ts";
import { called, copierOf, type Fold, fold, GETTER } from "../tree.ts";
import { shown } from "../words.ts";
import { digest } from "../bits.ts";

/** An array in a tree. */
export interface Leaf<A> {
  /** Where it stands, such as `layers.0.weight`. */
  readonly path: string;
  readonly array: A;
  readonly length: number;
  readonly dtype: DType;
  /** Shape and memory order of a tensor, for comparison and messages; left out of a bare array. */
  readonly layout?: string;
}

/** A tree taken apart, in an order that does not depend on the order in which records were written. */
export interface Flat<A, T> {
  readonly leaves: readonly Leaf<A>[];
  readonly total: number;
  readonly numbers: readonly { readonly path: string; readonly value: number }[];
  /** The same text where trees differ in nothing but the elements of their arrays and their numbers. */
  readonly structure: string;
  /** Makes the same tree of other arrays and numbers, frozen. */
  readonly rebuild: (arrays: readonly A[], numbers?: readonly number[]) => T;
}

/** What a tree may be made of. */
export interface Kind {
  readonly action: string;
  readonly name: string;
  /** Whether numbers, strings and booleans may stand in it. */
  readonly settings: boolean;
  /** Whether it is only looked at, and objects of classes may stand in it; false by default. */
  readonly compared?: boolean;
}

interface Flattened<A> {
  /** The same text where nodes differ in nothing but the elements of arrays and numbers. */
  readonly shape: string;
  /** Puts the node together from all arrays and numbers of the tree. */
  readonly build: (arrays: readonly A[], numbers: readonly number[]) => unknown;
  /** Whether the node is the same whatever these are. */
  readonly fixed: boolean;
}

/** Takes a tree apart: arrays and tensors of the device and null, in branches as in `lib/tree.ts`. */
export function flatten<A, T>(
  device: Pick<Device<A>, "owns" | "describe">,
  tree: T,
  { action, name, settings, compared = false }: Kind,
): Flat<A, T> {
  const leaves: Leaf<A>[] = [];
  const numbers: { readonly path: string; readonly value: number }[] = [];
  const here = (path: string) => called(path, `the ${name}`);
  const fixed = (shape: string, value: unknown) => ({ shape, build: () => value, fixed: true });

  const leafOf = (path: string, array: A, like?: Tensor<A>): Flattened<A> => {
    const info = describe(device, array, action, here(path));
    const layout = like && `(${like.shape}) ${like.format}`;
    const at = leaves.push({ path, array, ...info, ...(layout !== undefined && { layout }) }) - 1;
    const build = (arrays: readonly A[]) => like ? tensorLike(like, arrays[at]) : arrays[at];
    return { shape: `${info.length} ${info.dtype} ${layout ?? ""}`, build, fixed: false };
  };
  const refuse = (path: string, what: string): never => {
    const scalars = settings ? ", a number, a string, a boolean" : "";
    throw new TypeError(
      `Cannot ${action} as ${here(path)} must be an array or a tensor of the device, null` +
        `${scalars}, or a plain record, array, Map or Set of such: current value is ${what}`,
    );
  };
  const setting = (value: unknown, path: string): Flattened<A> => {
    if (value === GETTER) return refuse(path, "what a getter makes");
    if (!settings || typeof value === "function" || typeof value === "symbol") {
      return refuse(path, typeof value === "function" ? "a function" : String(value));
    }
    if (typeof value !== "number") return fixed(JSON.stringify(String(value)), value);
    const at = numbers.push({ path, value }) - 1;
    return { shape: "number", build: (_, values) => values[at], fixed: false };
  };
  const leaf = (node: unknown, path: string): Flattened<A> | undefined => {
    if (node === null) return fixed("null", null);
    if (device.owns(node)) return leafOf(path, node);
    if (typeof node !== "object") return setting(node, path);
    if (isTensor(node)) {
      checkTensor(device, node as Tensor<A>, action, path || name);
      const tensor = tensorLike(node as Tensor<A>, node.data as A);
      return leafOf(path, tensor.data, tensor);
    }
    // An array that the device does not own: the device says whose it is, or that it was freed.
    if (claimsArray(node)) describe(device, node as A, action, here(path));
    return ArrayBuffer.isView(node) ? refuse(path, shown(node)) : undefined;
  };
  const branch: Fold<Flattened<A>>["branch"] = (node, children, path) => {
    const copy = copierOf(node);
    if (copy === null && (!compared || children.length === 0)) return refuse(path, shown(node));
    if (Array.isArray(node) && children.length < node.length) refuse(path, "an array with holes");
    // The tree is strict: no child is without a result.
    const results = children.map(({ result }) => result as Flattened<A>);
    const shapes = children.map(({ step }, i) => `${JSON.stringify(step)}:${results[i].shape}`);
    const kind = [Array, Map, Set].findIndex((type) => node instanceof type);
    const shape = mark(`${kind} ${(Array.isArray(node) ? shapes : shapes.sort()).join()}`);
    const build: Flattened<A>["build"] = (...all) =>
      copy?.(results.map((result) => result.build(...all)));
    return results.every((result) => result.fixed)
      ? fixed(shape, build([], []))
      : { shape, build, fixed: false };
  };

  const whole = fold(tree, {
    ...{ action, name, strict: true, sorted: true, leaf, branch },
    found: () => leaves.length + numbers.length,
  }) as Flattened<A>;
  const total = leaves.reduce((sum, { length }) => sum + length, 0);
  return {
    leaves,
    total,
    numbers,
    structure: `${leaves.length} arrays of ${total} values, structure ${mark(whole.shape)}`,
    rebuild: (arrays, values = numbers.map(({ value }) => value)) =>
      whole.build(arrays, values) as T,
  };
}

const encoder = /* @__PURE__ */ new TextEncoder();

function mark(text: string): string {
  return digest(encoder.encode(text)).map((word) => word.toString(16).padStart(8, "0")).join("");
}

/** Reads all arrays of a tree back, in one transfer where the device can, else in one submit. */
export async function readBack<A>(
  device: Device<A>,
  { leaves, total }: { readonly leaves: readonly Pick<Leaf<A>, "array">[]; readonly total: number },
): Promise<Float32Array<ArrayBuffer>> {
  if (device.downloadAll) return await device.downloadAll(leaves.map(({ array }) => array));
  const reading = compose(device, (d) => leaves.map(({ array }) => d.download(array)));
  const all = new Float32Array(total);
  const parts = await Promise.all(reading);
  parts.reduce((at, values) => (all.set(values, at), at + values.length), 0);
  return all;
}

/** Uploads elements as arrays like those of a tree, in one submit. */
export function uploadLike<A>(
  device: Device<A>,
  leaves: readonly Leaf<A>[],
  all: Float32Array<ArrayBuffer>,
): readonly A[] {
  let at = 0;
  return compose(
    device,
    (d) => leaves.map(({ length, dtype }) => d.upload(all.subarray(at, at += length), dtype)),
  );
}

/** Tells whether a record says that it is a tensor. */
export function isTensor(node: object): node is { readonly data: unknown } {
  return "data" in node && "shape" in node && "dtype" in node && "format" in node;
}

/**
 * Tells whether something looks like some device's array, such as one that was freed, which is no branch with nothing in it: a
 * frozen record, or an object of a class that nothing can be changed of, with nothing of its own.
 */
export function claimsArray(node: object): boolean {
  if (!("device" in node)) return false;
  const own = Object.entries(Object.getOwnPropertyDescriptors(node));
  const fixed = own.length === 0 ? Object.getPrototypeOf(node) : node;
  return Object.isFrozen(fixed) &&
    own.every(([name, { value: field }]) =>
      typeof field === (name === "device" ? "string" : "function")
    );
}

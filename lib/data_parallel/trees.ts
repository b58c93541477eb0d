/**
 * Trees of arrays, such as gradients, states and whole models: taken apart into arrays and numbers, and put together
 * again.
 *
 * @module
 */

import { batch } from "../ownership.ts";
import type { Device } from "../device.ts";
import { checkTensor, describe, type DType, type Tensor, tensorLike } from "../tensor.ts";
import { digest } from "./bits.ts";

/** An array in a tree. */
export interface Leaf<A> {
  /** Where it stands, such as `layers[0].weight`. */
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
  /** Elements of all arrays together. */
  readonly total: number;
  /** Numbers that stand in the tree. */
  readonly numbers: readonly { readonly path: string; readonly value: number }[];
  /** The same text where trees differ in nothing but the elements of their arrays and their numbers. */
  readonly structure: string;
  /** Makes the same tree of other arrays and numbers, frozen. */
  readonly rebuild: (arrays: readonly A[], numbers?: readonly number[]) => T;
}

/** What a tree may be made of. */
export interface Kind {
  /** What the caller was about to do, for messages. */
  readonly action: string;
  /** What the caller calls the tree, for messages. */
  readonly name: string;
  /** Whether numbers, strings and booleans may stand in it. */
  readonly settings: boolean;
}

/** Puts a node together from all arrays and numbers of the tree. */
type Rebuild<A> = (arrays: readonly A[], numbers: readonly number[]) => unknown;

/**
 * Takes a tree apart: plain records and arrays, nested as they may be, with arrays and tensors of the device and null.
 *
 * @param device the device that the arrays live on
 * @param tree the tree; it is not changed, and what changes it later changes nothing here
 * @param kind what it may be made of
 * @returns its parts
 * @throws TypeError that names the path of what does not belong
 */
export function flatten<A, T>(
  device: Pick<Device<A>, "owns" | "describe">,
  tree: T,
  { action, name, settings }: Kind,
): Flat<A, T> {
  const leaves: Leaf<A>[] = [];
  const numbers: { readonly path: string; readonly value: number }[] = [];
  const shapes: string[] = [];
  const ancestors = new Map<object, string>();
  const called = (path: string) => path === "" ? `the ${name}` : path;

  const leaf = (path: string, array: A, layout?: string): number => {
    const info = describe(device, array, action, called(path));
    shapes.push(`${path}: ${info.length} ${info.dtype}`);
    return leaves.push({ path, array, ...info, ...(layout !== undefined && { layout }) }) - 1;
  };
  const refuse = (path: string, what: string): never => {
    throw new TypeError(
      `Cannot ${action} as ${called(path)} must be an array or a tensor of the device, null` +
        `${
          settings ? ", a number, a string, a boolean" : ""
        }, or a plain record or array of such: ` +
        `current value is ${what}`,
    );
  };
  const setting = (value: unknown, path: string): Rebuild<A> => {
    if (!settings || typeof value === "function" || typeof value === "symbol") {
      return refuse(path, typeof value === "function" ? "a function" : String(value));
    }
    shapes.push(`${path}: ${typeof value === "number" ? "number" : JSON.stringify(String(value))}`);
    if (typeof value !== "number") return () => value;
    const at = numbers.push({ path, value }) - 1;
    return (_, values) => values[at];
  };
  const visit = (node: unknown, path: string): Rebuild<A> => {
    if (node === null) return () => null;
    if (device.owns(node)) {
      const at = leaf(path, node);
      return (arrays) => arrays[at];
    }
    if (typeof node !== "object") return setting(node, path);
    if (isTensor(node)) {
      checkTensor(device, node as Tensor<A>, action, path || name);
      const tensor = tensorLike(node as Tensor<A>, node.data as A);
      const layout = `(${tensor.shape}) ${tensor.format}`;
      const at = leaf(path, tensor.data, layout);
      shapes.push(layout);
      return (arrays) => tensorLike(tensor, arrays[at]);
    }
    return branch(node, path);
  };
  const branch = (node: object, path: string): Rebuild<A> => {
    const above = ancestors.get(node);
    if (above !== undefined) return refuse(path, `${called(above)} again, a cycle`);
    ancestors.set(node, path);
    const build = Array.isArray(node) ? list(node, path) : record(node, path);
    ancestors.delete(node);
    return build;
  };
  const list = (node: readonly unknown[], path: string): Rebuild<A> => {
    shapes.push(`${path}: ${node.length} items`);
    // Array.from: map() skips the holes of a sparse array.
    const builds = Array.from(node, (item, i) => visit(item, `${path}[${i}]`));
    return (...all) => Object.freeze(builds.map((build) => build(...all)));
  };
  const record = (node: object, path: string): Rebuild<A> => {
    const prototype = Object.getPrototypeOf(node);
    // An array of a device that it does not own: the device says whose it is, or that it was freed.
    if (typeof (node as { device?: unknown }).device === "string") {
      describe(device, node as A, action, called(path));
    }
    if (prototype !== Object.prototype && prototype !== null) {
      return refuse(path, `of class ${prototype.constructor?.name}`);
    }
    const keys = Object.keys(node).sort();
    shapes.push(`${path}: ${JSON.stringify(keys)}`);
    const builds = keys.map((key) => {
      const step = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(key)
        ? `${path === "" ? "" : "."}${key}`
        : `[${JSON.stringify(key)}]`;
      return [key, visit((node as Record<string, unknown>)[key], path + step)] as const;
    });
    return (...all) =>
      Object.freeze(Object.fromEntries(builds.map(([key, build]) => [key, build(...all)])));
  };

  const build = visit(tree, "");
  const total = leaves.reduce((sum, { length }) => sum + length, 0);
  const text = shapes.join("\n");
  const mark = digest(Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)))
    .map((word) => word.toString(16).padStart(8, "0")).join("");
  return {
    leaves,
    total,
    numbers,
    structure: `${leaves.length} arrays of ${total} values, structure ${mark}`,
    rebuild: (arrays, values = numbers.map(({ value }) => value)) => build(arrays, values) as T,
  };
}

/**
 * Reads all arrays of a tree back, in one transfer where the device can, else in one submit.
 *
 * @param device where they live
 * @param flat the tree
 * @returns their elements side by side
 */
export async function readBack<A>(
  device: Device<A>,
  { leaves, total }: Pick<Flat<A, unknown>, "leaves" | "total">,
): Promise<Float32Array<ArrayBuffer>> {
  if (device.downloadAll) return await device.downloadAll(leaves.map(({ array }) => array));
  const reading = batch(device, (d) => leaves.map(({ array }) => d.download(array)));
  const all = new Float32Array(total);
  let at = 0;
  for (const values of await Promise.all(reading)) {
    all.set(values, at);
    at += values.length;
  }
  return all;
}

/**
 * Uploads elements as arrays like those of a tree, in one submit.
 *
 * @param device where they shall live
 * @param leaves the arrays that they shall be like
 * @param all their elements side by side
 * @returns new arrays
 */
export function uploadLike<A>(
  device: Device<A>,
  leaves: readonly Leaf<A>[],
  all: Float32Array<ArrayBuffer>,
): readonly A[] {
  let at = 0;
  return batch(
    device,
    (d) => leaves.map(({ length, dtype }) => d.upload(all.subarray(at, at += length), dtype)),
  );
}

/**
 * Tells whether a record says that it is a tensor.
 *
 * @param node any object
 * @returns whether it has a tensor's fields; what stands in them is not looked at
 */
export function isTensor(node: object): node is { readonly data: unknown } {
  return "data" in node && "shape" in node && "dtype" in node && "format" in node;
}

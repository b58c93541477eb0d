/**
 * Whole models as named arrays on the host.
 *
 * @module
 */

import { type Leaf, readBack } from "../../data_parallel/trees.ts";
import type { Device } from "../../device.ts";
import { lazyError } from "../../layers/check_layer.ts";
import type { LazyBatchNormLayer } from "../../layers/layer.ts";
import { called } from "../../layers/model.ts";
import { type Layout, toRowMajor } from "../../row_major.ts";
import { contentsOf } from "./entries.ts";
import type { Part } from "./nodes.ts";
import { toHalf } from "../numbers.ts";
import type { StateDict, StoredArray } from "../stored_array.ts";

const ACTION = "save the model";

/**
 * Copies a model to the host as named arrays, as PyTorch's `model.state_dict()` does, in one transfer where the device
 * can.
 *
 * A name is the path of a node (keys and indices joined by dots; none for the model itself) and what it names there:
 * - of a layer and of a bare state: `weight`, `bias`, `running_mean` and `running_var`, F32 of shape (C), and
 *   `num_batches_tracked`, I64 of shape (), in PyTorch's order. What is null has no entry, and where nothing is tracked
 *   there is no counter. A layer's `state` is no part of the path.
 * - of a tensor: nothing more. F32 or F16 as it is stored (a NaN of F16 without its payload), of its logical shape, in
 *   row-major order over that in both formats.
 * - of a bare array of the device: nothing more; shape (length).
 *
 * As in PyTorch, settings (`eps`, `momentum`, `kind`, `processGroup`) are not in it, and neither are other fields of a
 * layer. Nothing else is looked into: numbers, texts, typed arrays, Maps, class instances, functions. A frozen
 * record of nothing but a text `device` and functions counts as an array of some device.
 *
 * @param device the device that the model's arrays live on
 * @param model a tree of plain records and arrays, with layers as of `initLayer`, states, tensors and arrays in it, or
 * a single one; it is not changed, and what happens to it after the call is of no effect
 * @returns arrays on the host in the order of the tree, each of memory of its own; but a node that stands at several
 * paths has the same arrays by all its names
 * @throws (rejects with) TypeError or RangeError that names the path of a cycle, of a node with the `kind` of a layer
 * that is none, of a state or a tensor that does not fit together, of an array that was freed or is another device's,
 * of a lazy layer without a state; that gives a name which two nodes would have, as `{ "a.b": x, a: { b: y } }`
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 * import { toStateDict, writeSafetensors } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const model = {
 *   linear: { weight: tensor(device, [1, 2, 3, 4], [2, 2]) },
 *   norms: [initLayer(device, "batchNorm1d", 2, { bias: false })],
 * };
 * const dict = await toStateDict(device, model);
 * assert.deepEqual([...dict.keys()], [
 *   "linear.weight",
 *   "norms.0.weight",
 *   "norms.0.running_mean",
 *   "norms.0.running_var",
 *   "norms.0.num_batches_tracked",
 * ]);
 * const bytes = writeSafetensors(dict); // torch.nn.Module.load_state_dict takes what is in it.
 * ```
 */
export async function toStateDict<A>(device: Device<A>, model: unknown): Promise<StateDict> {
  const { parts, entries } = contentsOf(device, model, ACTION);
  const leavesOf = new Map(parts.map((part) => [part, leavesIn(part)]));
  const leaves = [...leavesOf.values()].flat();
  const total = leaves.reduce((sum, { length }) => sum + length, 0);
  const values = leaves.length === 0
    ? new Float32Array()
    : await readBack(device, { leaves, total });
  let at = 0;
  const storedOf = new Map(parts.map((part) => {
    const arrays = leavesOf.get(part)!.map((leaf) =>
      stored(toRowMajor(values.slice(at, at += leaf.length), leaf), leaf)
    );
    return [part, { arrays, counter: storedCounter(part.counter ?? 0) }];
  }));
  return new Map(entries.map(({ name, part, slot }) => {
    const { arrays, counter } = storedOf.get(part)!;
    return [name, slot === "counter" ? counter : arrays[slot]];
  }));
}

/** An array, and how its elements lie. */
interface LaidOut<A> extends Leaf<A>, Layout {}

function leavesIn<A>({ node, path, first, slots }: Part<A>): readonly LaidOut<A>[] {
  if (first !== null) throw lazyError(node as LazyBatchNormLayer, `${ACTION} at ${called(path)}`);
  return slots.map(({ array, shape, dtype, format }) => {
    // A copy: the caller may change a shape while the readback is under way.
    const extents = [...shape ?? []];
    const length = extents.reduce((a, b) => a * b, 1);
    return { path, array: array as A, length, dtype, format, shape: extents };
  });
}

function stored(
  data: Float32Array<ArrayBuffer>,
  { shape: extents, dtype }: Pick<LaidOut<unknown>, "shape" | "dtype">,
): StoredArray {
  const shape = Object.freeze([...extents]);
  return Object.freeze(
    dtype === "float32"
      ? { dtype: "F32", shape, data }
      : { dtype: "F16", shape, data: Uint16Array.from(data, toHalf) },
  );
}

function storedCounter(counter: number): StoredArray {
  const data = BigInt64Array.of(BigInt(counter));
  return Object.freeze({ dtype: "I64", shape: Object.freeze([]), data });
}

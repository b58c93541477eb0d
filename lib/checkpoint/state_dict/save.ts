/** Whole models as named arrays on the host. */

import { toHalf } from "../../bits.ts";
import { readBack } from "../../data_parallel/trees.ts";
import type { Device } from "../../device.ts";
import { lazyError } from "../../layers/check_layer.ts";
import type { LazyBatchNormLayer } from "../../layers/layer.ts";
import { called } from "../../tree.ts";
import { toRowMajor } from "../../row_major.ts";
import { contentsOf, type StateDictOptions } from "./entries.ts";
import type { Part } from "./nodes.ts";
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
 * - of a bare array of the device and of a `Float32Array`: nothing more; shape (length).
 *
 * As in PyTorch, settings (`eps`, `momentum`, `kind`, `processGroup`) are not in it, and neither are other fields of a
 * layer, numbers, texts and functions. Maps, Sets and own fields of objects of classes are looked into as records are;
 * getters and private fields are not. A frozen record of nothing but a text `device` and functions counts as an array of
 * some device.
 *
 * @param device the device that the model's arrays live on
 * @param model a tree with layers as of `initLayer`, states, tensors and arrays in it, or a single one; it is not changed,
 * and what happens to it after the call is of no effect
 * @returns arrays on the host in the order of the tree, each of memory of its own; but a node that stands at several
 * paths has the same arrays by all its names
 * @throws (rejects with) TypeError or RangeError that names the path of a cycle, of a node with the `kind` of a layer
 * that is none, of a state or a tensor that does not fit together, of an array that was freed or is another device's,
 * of a lazy layer without a state, of a typed array that is no `Float32Array`; where there is nothing at all; that gives a name which two nodes would have, as `{ "a.b": x, a: { b: y } }`
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 * import { toStateDict } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const linear = { weight: tensor(device, [1, 2, 3, 4], [2, 2]) };
 * const norms = [initLayer(device, "batchNorm1d", 2, { bias: false })];
 * const [...names] = (await toStateDict(device, { linear, norms })).keys();
 * assert.deepEqual(names.slice(0, 3), ["linear.weight", "norms.0.weight", "norms.0.running_mean"]);
 * assert.deepEqual(names.slice(3), ["norms.0.running_var", "norms.0.num_batches_tracked"]);
 * ```
 */
export async function toStateDict<A>(
  device: Device<A>,
  model: unknown,
  options: StateDictOptions = {},
): Promise<StateDict> {
  const { parts, entries } = contentsOf(device, model, ACTION, options);
  const copies = parts.map((part) => ({ part, slots: copiesOf(part) }));
  const leaves = copies.flatMap(({ slots }) => slots.filter(({ host }) => host === null));
  const total = leaves.reduce((sum, { length }) => sum + length, 0);
  const values = leaves.length === 0
    ? new Float32Array()
    : await readBack(device, { leaves, total });
  let at = 0;
  const storedOf = new Map(copies.map(({ part, slots }) => {
    const arrays = slots.map(({ host, shape, length, dtype, format }): StoredArray => {
      const data = host ?? toRowMajor(values.slice(at, at += length), { shape, format });
      if (dtype === "float32") return Object.freeze({ dtype: "F32", shape, data });
      return Object.freeze({ dtype: "F16", shape, data: Uint16Array.from(data, toHalf) });
    });
    const data = BigInt64Array.of(BigInt(part.counter ?? 0));
    const counter: StoredArray = Object.freeze({ dtype: "I64", shape: Object.freeze([]), data });
    return [part, { arrays, counter }];
  }));
  return new Map(entries.map(({ name, part, slot }) => {
    const { arrays, counter } = storedOf.get(part)!;
    return [name, slot === "counter" ? counter : arrays[slot]];
  }));
}

/** A copy of all but arrays of the device: the caller may change the rest while the readback is under way. */
function copiesOf<A>({ node, path, first, slots }: Part<A>) {
  if (first !== null) throw lazyError(node as LazyBatchNormLayer, `${ACTION} at ${called(path)}`);
  return slots.map(({ array, host, shape: extents, dtype, format }) => {
    const shape = Object.freeze([...extents ?? []]);
    const length = shape.reduce((a, b) => a * b, 1);
    const own = host && new Float32Array(host);
    return { array: array as A, host: own, shape, length, dtype, format };
  });
}

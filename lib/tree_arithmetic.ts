/**
 * Arithmetic over arrays and whole trees of them: optimisers, averages of models, sums of gradients, and whether they are finite.
 */

import { checkFunction, checkHandle } from "./check_effects.ts";
import { type Flat, flatten, readBack } from "./data_parallel/trees.ts";
import type { Device } from "./device.ts";
import { compose, region } from "./ownership.ts";
import { describe } from "./tensor.ts";
import { called } from "./tree.ts";
import { mistaken, refused, wrongPair, wrongValue } from "./words.ts";

const ROOT = "the tree itself";

/**
 * Computes x + scale * y element by element.
 *
 * @param device the device that both live on
 * @param x an array of any length and dtype
 * @param y another of the same length
 * @param scale a finite factor, such as minus the learning rate
 * @returns a new array in the dtype of x
 * @throws TypeError where the lengths differ or an array is not live, RangeError where scale is not finite
 *
 * @example
 * ```ts
 * import { addScaled, referenceDevice } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const [x, y] = [device.upload(Float32Array.of(1, 2)), device.upload(Float32Array.of(4, 8))];
 * const z = addScaled(device, x, y, -0.25);
 * assert.deepEqual(await device.download(z), Float32Array.of(0, 0));
 * ```
 */
export function addScaled<A>(
  device: Pick<Device<A>, "describe" | "addScaled">,
  x: A,
  y: A,
  scale: number,
): A {
  const action = "add the arrays";
  checkHandle(device, "addScaled", action);
  const [lengthX, lengthY] = [x, y].map((array) => {
    const advice = mistaken(array);
    const name = advice ? `what is no array${advice}` : "one of them";
    return describe(device, array, action, name).length;
  });
  if (lengthX !== lengthY) {
    throw wrongPair(action, "their lengths must be equal", lengthX, lengthY);
  }
  if (!Number.isFinite(scale)) throw wrongValue(action, "scale must be finite", scale);
  return device.addScaled({ x, y, scale });
}

/**
 * Computes a tree of arrays from trees of one structure, array by array: momentum, weight decay, averages of models, sums
 * of gradients.
 *
 * All launches go out in one submit; what the body makes and does not return is freed. Arrays that stand at several places
 * in all trees alike are computed once, and stay one.
 *
 * @param device the device that the arrays live on
 * @param body computes an array like `first`, of its length and dtype, of those that stand at one place, in the order of the
 * trees; launches through the handle that it is given; may return one of its arguments
 * @param tree the first tree: plain records and arrays, nested as they may be, with arrays and tensors of the device, null,
 * numbers, strings and booleans; it is not changed
 * @param others more trees, with an array or tensor of the same length where the first has one, and no others; tensors must
 * have the same shape and format; null, numbers and the like may differ
 * @returns a frozen tree like the first, with its numbers, strings and booleans
 * @throws what the body throws; TypeError that names the path of what does not belong in a tree, of arrays that stand in one
 * tree alone or differ in length, shape or format, of a result of another length or dtype
 *
 * @example A step of gradient descent
 * ```ts
 * import { addScaled, mapArrays, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const layer = { weight: tensor(device, [2, 4], [1, 2]), bias: null };
 * const gradients = { weight: tensor(device, [1, 1], [1, 2]), bias: null };
 * const next = mapArrays(device, (d, x, y) => addScaled(d, x, y, -0.5), layer, gradients);
 * assert.deepEqual(await toArray(device, next.weight), Float32Array.of(1.5, 3.5));
 * ```
 */
export function mapArrays<A, T>(
  device: Device<A>,
  body: (device: NoInfer<Device<A>>, first: NoInfer<A>, ...others: NoInfer<A>[]) => NoInfer<A>,
  tree: T,
  ...others: readonly unknown[]
): T {
  const action = "map the arrays";
  checkHandle(device, "free", action);
  checkFunction(body, "the body", action);
  const kind = { action, settings: true };
  const first = flatten<A, T>(device, tree, { ...kind, name: "first tree" });
  const rest = others.map((other, i) => {
    const flat = flatten<A, unknown>(device, other, { ...kind, name: `tree ${i + 2}` });
    checkAlike(first, flat, `tree ${i + 2}`, action);
    return flat;
  });
  return region(device, (scope) =>
    compose(scope, (d) => {
      const done = new Map<A, { readonly from: readonly A[]; readonly result: A }[]>();
      const arrays = first.leaves.map(({ array, path, length, dtype }, i) => {
        const from = rest.map(({ leaves }) => leaves[i].array);
        const before = done.get(array) ?? [];
        const same = before.find((other) => other.from.every((own, j) => own === from[j]));
        if (same !== undefined) return same.result;
        const result = body(d, array, ...from);
        const info = describe(d, result, action, `the result at ${called(path, ROOT)}`);
        if (info.length !== length || info.dtype !== dtype) {
          const like = `the first array's length and dtype, ${length} ${dtype}`;
          const wanted = `the result at ${called(path, ROOT)} must have ${like}`;
          throw refused(action, wanted, `ones are ${info.length} ${info.dtype}`);
        }
        done.set(array, [...before, { from, result }]);
        return result;
      });
      return first.rebuild(arrays);
    }));
}

/**
 * Tells whether all numbers of a tree are finite: gradients, a new state, a whole model.
 *
 * Since a state is never changed, a step that went wrong is undone by not keeping what it returned. After a reduction over
 * a group all ranks have the same bits, so that all come to the same answer without asking each other.
 *
 * @param device the device that the arrays live on; they are read back, in one transfer where it can
 * @param tree plain records and arrays, nested as they may be, with arrays and tensors of the device, null, numbers, strings
 * and booleans
 * @returns whether neither NaN nor an infinity stands in an array or is a number of the tree
 * @throws (rejects with) TypeError that names the path of what does not belong
 *
 * @example
 * ```ts
 * import { allFinite, referenceDevice } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const gradients = { weight: device.upload(Float32Array.of(1, Infinity)), bias: null };
 * assert.equal(await allFinite(device, gradients), false);
 * ```
 */
export async function allFinite<A>(device: Device<A>, tree: unknown): Promise<boolean> {
  const action = "look for what is not finite";
  checkHandle(device, "download", action);
  const kind = { action, name: "tree", settings: true };
  const flat = flatten<A, unknown>(device, tree, kind);
  if (!flat.numbers.every(({ value }) => Number.isFinite(value))) return false;
  if (flat.leaves.length === 0) return true;
  return (await readBack(device, flat)).every((value) => Number.isFinite(value));
}

/** Throws unless arrays of one length stand at the same places. */
function checkAlike<A>(
  { leaves: wanted }: Flat<A, unknown>,
  { leaves }: Flat<A, unknown>,
  name: string,
  action: string,
): void {
  for (let i = 0; i < Math.max(wanted.length, leaves.length); i++) {
    const [first, other] = [wanted[i], leaves[i]];
    if (first?.path !== other?.path) {
      const [here, there] = [first, other].map((leaf) => leaf ? called(leaf.path, ROOT) : "none");
      const wanted = `${name} must have arrays where the first tree has some`;
      throw refused(action, wanted, `places are ${here} and ${there}`);
    }
    const here = called(first.path, ROOT);
    // An array beside a tensor lies as it does; of two tensors each may lie in its own way.
    if (first.layout && other.layout && first.layout !== other.layout) {
      const wanted = `tensors at ${here} must have one shape and format`;
      throw refused(action, wanted, `ones are ${first.layout} and ${other.layout}`);
    }
    if (first.length !== other.length) {
      throw wrongPair(action, `arrays at ${here} must have one length`, first.length, other.length);
    }
  }
}

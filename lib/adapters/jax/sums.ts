/**
 * Sums over the ranks of what each has of its own: losses and gradients, as they stand in a tree of arrays of jax-js.
 *
 * @module
 */

import { checkGroup } from "../../check_effects.ts";
import type { ReduceGroup } from "../../collectives.ts";
import { sum } from "../../moments.ts";
import { elements } from "../../tensor.ts";
import { checkFound, nodesOf, withNodes } from "../../tree.ts";
import { joined } from "../joined.ts";
import { checkArrays, checkJax } from "./check.ts";
import type { Jax, JaxArray } from "./framework.ts";
import { giveAll } from "./transfer.ts";
import { inTurn } from "./turn.ts";

const ACTION = "sum the arrays";

/**
 * Adds each array of a tree to those of the other ranks: gradients, with the loss beside them, in one packed all-reduce.
 *
 * A loss that each rank divides by the number of all ranks' rows, summed, is the loss of the whole batch, and so are its
 * gradients, however uneven the ranks' shares are. Sums are in float64, rounded once.
 *
 * @param jax the module of jax-js
 * @param tree records and lists, nested as they may be, with float32 arrays at their leaves; of the same shapes on all ranks.
 * Its arrays are given up when the call succeeds; one that rejects leaves them the caller's
 * @param group the ranks; with a `worldSize` of 1 the tree comes back as it is
 * @returns a tree of the same form, frozen, whose arrays are new and the caller's, with the same bits on every rank
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank's tree cannot be summed (`cause`: the TypeError
 * of that rank: an array that is gone, of float16, or none at all) or has other sizes
 *
 * @example The gradients of a step
 * ```ts
 * import type { ReduceGroup } from "@syncbn/syncbn";
 * import { type Jax, type JaxArray, psum } from "@syncbn/syncbn/jax";
 *
 * async function step<J extends JaxArray>(jax: Jax<J>, loss: J, grads: J[], group: ReduceGroup) {
 *   const total = await psum(jax, { loss, grads }, group);
 *   return total.grads; // for the optimiser
 * }
 * ```
 */
export async function psum<J extends JaxArray, T>(
  jax: Jax<J>,
  tree: T,
  group: ReduceGroup,
): Promise<T> {
  checkJax(jax, ACTION);
  checkGroup(group, {}, ACTION, { name: "group" });
  const isArray = (value: object): value is J => "refCount" in value && "shape" in value;
  let nodes: ReturnType<typeof nodesOf<J>> = new Map();
  let failure: (() => never) | undefined;
  try {
    nodes = nodesOf(tree, isArray, ACTION);
  } catch (error) {
    failure = () => {
      throw error; // In this rank's turn, where the others learn of it.
    };
  }
  const arrays = [...nodes.keys()];
  const count = arrays.reduce((all, { shape }) => all + elements(shape), 0);
  return await inTurn(group, { combine: sum, label: `psum ${count} float32` }, async (group) => {
    failure?.();
    checkFound(arrays.length, tree, ACTION, "array of jax-js");
    for (const [array, places] of nodes) {
      checkArrays(places.map((place) => [place || "the tree", array]), ACTION);
    }
    if (group.worldSize === 1) return tree;
    const parts = await Promise.all(arrays.map((array) => array.ref.data()));
    const total = await group.allReduce(joined(new Float64Array(count), parts), sum);
    let at = 0;
    const sums = await giveAll(arrays.map(({ shape, device }) => () => {
      const values = Float32Array.from(total.subarray(at, at += elements(shape)));
      const options = { shape: [...shape], device };
      return values.length === 0
        ? jax.numpy.zeros(options.shape, options)
        : jax.numpy.array(values, options);
    }));
    for (const [array, places] of nodes) places.forEach(() => array.dispose());
    arrays.forEach((array, i) => nodes.get(array)?.slice(1).forEach(() => sums[i]?.ref));
    return withNodes(tree, new Map(arrays.map((array, i) => [array, sums[i]])), ACTION);
  });
}

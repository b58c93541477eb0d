/**
 * A collective's place in line before there is anything to contribute: jax-js hands its numbers out later, and ranks match
 * calls by the order of the program.
 *
 * @module
 */

import type { Combine, ReduceGroup } from "../../collectives.ts";

/** The one collective of a call. */
export interface Turn {
  /** How contributions are folded. */
  readonly combine: Combine;
  /** What the rank is doing, compared across ranks. */
  readonly label: string;
}

/**
 * Takes a place in a group's line at once and runs a body that contributes to it later, through the group that it is given.
 * What the body throws before that is this rank's failure on every rank.
 */
export async function inTurn<R>(
  group: ReduceGroup,
  { combine, label }: Turn,
  body: (group: ReduceGroup) => Promise<R>,
): Promise<R> {
  const { worldSize } = group;
  if (worldSize === 1) return await body(group);
  let contribute: (own: Float64Array | Promise<Float64Array>) => void = () => {};
  let fail: (error: unknown) => void = () => {};
  const own = new Promise<Float64Array>((resolve, reject) =>
    [contribute, fail] = [resolve, reject]
  );
  own.catch(() => {}); // An engine that gives up early leaves a rejection to nobody.
  const total = group.allReduce(own, combine, { label });
  total.catch(() => {});
  const allReduce: ReduceGroup["allReduce"] = (local) => {
    contribute(local);
    return total;
  };
  try {
    return await body({ worldSize, allReduce });
  } catch (error) {
    fail(error);
    await total;
    throw error;
  }
}

/**
 * Gradients of all replicas: their sum or mean, and the scale that makes a mean over uneven batches exact.
 *
 * The caller says how many buckets there are, not how large: all calls take their place in line before the first await,
 * and a rank whose tree is wrong must make as many as the others, though it cannot know what follows from a size that
 * it has not got. Long arrays are cut by the engines.
 */

import { checkGroup, checkOptions, checkSignal, groupIn, signalIn } from "../check_effects.ts";
import { checkInteger, checkOneOf, SWITCH } from "../check_value.ts";
import type { CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { exchange } from "../exchange.ts";
import { shareOf } from "../groups/contributions.ts";
import { sum } from "../moments.ts";
import { type Reduced, reduceExactly } from "./exact.ts";
import { compose, region } from "../ownership.ts";
import { checkWire } from "../wire.ts";
import { type Flat, readBack, uploadLike } from "./trees.ts";
import { inTurn, turnOf } from "./turn.ts";

/** Options of {@linkcode allReduceGradients}. */
export interface AllReduceGradientsOptions extends Pick<CollectiveOptions, "signal"> {
  /** Whether the sum is divided by the number of ranks, as PyTorch's DistributedDataParallel does; true by default. */
  readonly average?: boolean;
  /**
   * Number of collectives that the values are cut into, each of about as many, where one message would be too large; 1
   * by default, 1,000 at most. A number, not a size, and the same on every rank: so a rank whose tree is wrong makes as many calls as
   * the others, and the ranks stay in step.
   */
  readonly buckets?: number;
  /**
   * Whether the tree holds sums as of `exactSums` instead of arrays; they are reduced without rounding, and become arrays of the
   * device, float32. `average` must be false then, and there are no buckets.
   */
  readonly exact?: boolean;
}

const ACTION = "reduce the gradients";

/** More would only cost memory: each is a call of its own. */
const MOST_BUCKETS = 1000;

/**
 * Adds up the gradients of all ranks, or averages them, in one readback, one collective and one upload.
 *
 * Values travel and are added in float64, and are rounded once to the storage that they had. The collective is called
 * before the first await, so that a reduction may go on beside other calls. The arrays may be freed after the call.
 * With a `worldSize` of 1 nothing is read back: the result is a copy. With `exact` the tree holds what `exactSums` made, which has not
 * been rounded yet: the result has the same bits for any number of ranks, any partition and any order; 160 bytes per sum travel.
 *
 * @param tree gradients: plain records, arrays, Maps and Sets, nested as they may be, with arrays and tensors of the device
 * at the leaves, and null where there is no gradient; of one structure on every rank, in whatever order keys were written.
 * An object of a class cannot be made again, so give its gradients as a record or a Map
 * @param effects `device`: where the gradients live; `group`: the ranks
 * @returns a frozen tree like the given one, of new arrays, with the same bits on every rank
 * @throws (rejects with) CollectiveError, the same on every rank, where the ranks' trees differ in structure, a rank
 * failed (`cause`: for a tree that holds something else or a freed array a TypeError that names its path), or did not
 * arrive; in a world of one that TypeError itself
 *
 * @example The gradients of a layer without a bias
 * ```ts
 * import { allReduceGradients, referenceDevice, runRanks } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const means = await runRanks(2, async (group) => {
 *   const norm = { gradWeight: device.upload(Float32Array.of(group.rank, 4)), gradBias: null };
 *   const mean = await allReduceGradients({ layers: [norm] }, { device, group });
 *   return [...await device.download(mean.layers[0].gradWeight)];
 * });
 * assert.deepEqual(means, [[0.5, 4], [0.5, 4]]);
 * ```
 */
export function allReduceGradients<A, T>(
  tree: T,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: AllReduceGradientsOptions & { readonly exact: true },
): Promise<Reduced<T, A>>;
/** Adds up gradients that are rounded already, or averages them; all is as above, and the result is of the given type. */
export function allReduceGradients<A, T>(
  tree: T,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options?: AllReduceGradientsOptions,
): Promise<T>;
export async function allReduceGradients<A, T>(
  tree: T,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: AllReduceGradientsOptions = {},
): Promise<T | Reduced<T, A>> {
  if (options?.exact === true) {
    return await reduceExactly(tree, effects, { ...options, exact: true });
  }
  const { worldSize } = groupIn(effects, options, ACTION);
  const { device, group } = effects;
  const { average = true, buckets = 1 } = options ?? {};
  const signal = signalIn(options);
  const kind = { action: ACTION, name: "tree", settings: false };
  const turn = turnOf<A, T>(effects, tree, kind, options, ["average", "buckets", "exact"], () => {
    checkOneOf(options.average, SWITCH, "average", ACTION);
    checkOneOf(options.exact, SWITCH, "exact", ACTION);
    checkInteger(buckets, "buckets", ACTION, 1, MOST_BUCKETS);
  });
  if (worldSize === 1) return copyOf(device, turn.get());
  // As many calls as the others, though their number may be what is wrong.
  const isCount = Number.isSafeInteger(buckets) && buckets >= 1 && buckets <= MOST_BUCKETS;
  const count = isCount ? buckets : 1;
  const label = `allReduceGradients ${average ? "mean" : "sum"} of ` +
    `${turn.flat?.structure ?? "what is no tree of gradients"}`;
  return await inTurn(turn, device, async (scope) => {
    const reading = (async () => await readBack(scope, turn.get()))();
    const calls = Array.from({ length: count }, (_, bucket) => {
      const own = count === 1 ? label : `${label}, bucket ${bucket + 1} of ${count}`;
      const part = (all: Float32Array) =>
        Float64Array.from(all.subarray(...shareOf(all.length, bucket, count)));
      return exchange(
        () => ({ wire: reading.then(part) }),
        (sending) => group.allReduce(sending, sum, { label: own, signal, inPlace: true }),
      );
    });
    // All of them, so that the first failure in program order is the same on every rank.
    const settled = await Promise.allSettled(calls);
    const totals = settled.map((call) => {
      if (call.status === "rejected") throw call.reason;
      return call.value.total;
    });
    const { leaves, total, rebuild } = turn.get();
    const all = new Float32Array(total);
    totals.forEach((values, bucket) => {
      const [from, to] = shareOf(total, bucket, count);
      checkWire(values, to - from, ACTION);
      all.set(average ? values.map((value) => value / worldSize) : values, from);
    });
    return rebuild(uploadLike(scope, leaves, all));
  });
}

/** The same tree of new arrays, without a readback: x - 0 is x, -0 included. */
function copyOf<A, T>(device: Device<A>, { leaves, rebuild }: Flat<A, T>): T {
  return region(device, (scope) =>
    compose(scope, (d) => {
      const zeros = new Map<number, A>();
      const copies = leaves.map(({ array, length }) => {
        const y = zeros.get(length) ?? d.upload(new Float32Array(length));
        zeros.set(length, y);
        return d.addScaled({ x: array, y, scale: -1 });
      });
      return rebuild(copies);
    }));
}

/**
 * Computes the factor for a rank's mean loss that makes averaged gradients of uneven batches those of one process.
 *
 * That is localCount * worldSize / totalCount: the mean over ranks of the scaled mean losses is the mean over all
 * examples. One collective of one number; a `worldSize` of 1 needs none.
 *
 * @param localCount examples that this rank's loss is a mean of, an integer >= 0
 * @param group the ranks whose gradients are averaged
 * @returns the factor, 1 where all ranks have as many; 0 for a rank without examples, which leaves its loss out (a mean
 * of nothing is NaN, and 0 * NaN too) and starts backward from a gradient of no values; 0 on all where none has any
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank's count is no integer >= 0 (`cause`: its
 * RangeError, which a world of one gets itself), a rank did something else, or did not arrive
 *
 * @example Three examples on one rank, one on the other
 * ```ts
 * import { lossScale, runRanks } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const scales = await runRanks(2, (group) => lossScale(group.rank === 0 ? 3 : 1, group));
 * assert.deepEqual(scales, [1.5, 0.5]);
 * ```
 */
export async function lossScale(
  localCount: number,
  group: ReduceGroup,
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<number> {
  const action = "scale the loss";
  const { worldSize } = checkGroup(group, options, action, { name: "the group" });
  const count = () => {
    checkOptions(options, ["signal"], action);
    checkSignal(options.signal, action);
    checkInteger(localCount, "localCount", action, 0);
    return localCount;
  };
  if (worldSize === 1) return count() > 0 ? 1 : 0;
  const launch = () => ({ wire: Float64Array.of(count()) });
  const told = { label: "lossScale", signal: signalIn(options) };
  const { total } = await exchange(launch, (sending) => group.allReduce(sending, sum, told));
  checkWire(total, 1, action);
  return localCount === 0 ? 0 : localCount * worldSize / total[0];
}

/** Statistics as values: the moments of a batch, of several batches, of all ranks, and what is made of them. */

import { checkDevice, checkOptions } from "../check_effects.ts";
import { checkInteger } from "../check_value.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkCount } from "../moments.ts";
import { compose } from "../ownership.ts";
import { checkTensor, describe, type Tensor, valuesPerChannel } from "../tensor.ts";
import { formatOn, momentsFormat, momentsWire, type WireFormat } from "../wire.ts";
import { refused, shown, wrongKind, wrongPair, wrongValue } from "../words.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";
import {
  isWeighted,
  takeWeights,
  totalsOf,
  type WeightOptions,
  type Weights,
  withWeights,
} from "./weights.ts";

/** Count, mean and sum of squared deviations of every channel, on a device. A plain record, which owns its array. */
export interface Moments<A> {
  /**
   * The numbers, in the device's own layout: read them with its `toWire`, as [count, mean C, m2 C], or as
   * [positives, count, mean C, m2 C] where values count by weight; an exact device has digits.
   */
  readonly data: A;
  /** Groups of samples that have statistics of their own, which is one, and channels C. */
  readonly shape: readonly [groups: 1, channels: number];
  /** Values per channel, or the sum of their weights; null where only the device knows. */
  readonly count: number | null;
  /**
   * Values per channel whose weight is positive, where values count by weight: 2 may stand for all that are more; null where
   * only the device knows.
   */
  readonly positives?: number | null;
}

/** Moments of batches of this rank alone. */
export interface LocalMoments<A> extends Moments<A> {
  /** Sets them apart from those of a group. */
  readonly kind: "local";
}

/** Moments of a batch over all ranks of a group. */
export interface GroupMoments<A> extends Moments<A> {
  /** Sets them apart from those of one rank. */
  readonly kind: "group";
  /** Number of ranks whose statistics these are. */
  readonly worldSize: number;
}

/**
 * Computes the moments of this rank's batch: per channel the number of values, their mean, and the sum of their squared
 * deviations from it.
 *
 * The variance is taken about the mean, never as E[x^2] - E[x]^2. Synchronous: nothing is read back.
 *
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16; N may be 0
 * By weights w the count is W, the sum of w, the mean (sum of w*x)/W, and deviations are summed by weight.
 *
 * @param effects `device`: where everything lives
 * @param options weights of the examples, where not all count alike
 * @returns frozen moments, whose array is the caller's
 * @throws TypeError or RangeError where the input is malformed or not the device's, or weights do not fit; those that are
 * negative or not finite where the device reads back at once, and otherwise later, when the moments cross a group
 *
 * @example Population statistics of two batches, as for "precise" batch norm
 * ```ts
 * import { batchMoments, mergeMoments, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const [a, b] = [[1, 3], [5]].map((values) =>
 *   batchMoments(tensor(device, values, [values.length, 1]), { device })
 * );
 * const both = mergeMoments(a, b, { device });
 * assert.deepEqual(await device.toWire(both.data), Float64Array.of(3, 3, 8));
 * ```
 */
export function batchMoments<A>(
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: WeightOptions<A> = {},
): LocalMoments<A> {
  const action = "compute the moments";
  const { device } = checkDevice(effects, action);
  checkOptions(options, ["weights", "lengths"], action);
  checkTensor(device, input, action, "input");
  const weights = takeWeights(device, input, options, action);
  // Nothing but a mask of lengths is freed where a launch throws.
  if (!isWeighted(weights)) return momentsOf(device, input);
  return compose(device, (d) => momentsOf(d, input, weights, action));
}

/** Moments of a batch that is checked. */
export function momentsOf<A>(
  device: Device<A>,
  input: Tensor<A>,
  weights: Weights<A> = {},
  action = "compute the moments",
): LocalMoments<A> {
  const data = reduced(device, input, weights);
  const count = valuesPerChannel(input);
  const shape = shapeOf(input.shape[1]);
  if (!isWeighted(weights)) return Object.freeze({ kind: "local", data, shape, count });
  const totals = totalsOf(device, weights, data, count === 0, action);
  return Object.freeze({ kind: "local", data, shape, ...totals });
}

/** The array of the moments of a batch that is checked. */
export function reduced<A>(device: Device<A>, input: Tensor<A>, weights: Weights<A>): A {
  if (!isWeighted(weights)) return device.moments({ input });
  return withWeights(device, input, weights, (weights) => device.moments({ input, weights }));
}

/** Moments of all ranks, as they come from the wire. */
export function groupMoments<A>(
  device: Device<A>,
  wire: Float64Array,
  channels: number,
  worldSize: number,
  format: WireFormat = momentsWire,
): GroupMoments<A> {
  const data = device.fromWire(formatOn(device, format), wire);
  const [first, second] = wire;
  const totals = format === momentsWire ? { count: first } : { positives: first, count: second };
  return Object.freeze({ kind: "group", data, shape: shapeOf(channels), ...totals, worldSize });
}

/** The same moments as those of a group of one rank. */
export function alone<A>(moments: Moments<A>): GroupMoments<A> {
  return Object.freeze({ ...moments, kind: "group", worldSize: 1 });
}

/** Checks that moments have a variance, as far as is known. */
export function checkEnough({ positives, count }: Moments<unknown>, action: string): void {
  const values = positives === undefined ? count : positives;
  if (values !== null) checkCount(values, action);
}

const shapeOf = (channels: number) => Object.freeze([1, channels] as const);

/**
 * Merges the moments of two batches of this rank into those of their union, without leaving the device.
 *
 * Chan, Golub, LeVeque 1983, eq. 2.1, as {@linkcode combineMoments} does between ranks. Moments of a group stand for all
 * ranks already, so merge first and reduce once.
 *
 * @param a moments of one batch; they are not changed
 * @param b moments of another, of as many channels
 * @param effects `device`: where both live
 * @returns frozen moments, whose array is the caller's
 * @throws TypeError where channels differ, they are a group's, or the arrays are not live
 *
 * @example Batches too large for the memory
 * ```ts
 * import { batchMoments, mergeMoments, referenceDevice, region, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const moments = region(device, (scope) =>
 *   [[1, 2], [3, 4], [5, 6]]
 *     .map((values) => batchMoments(tensor(scope, values, [2, 1]), { device: scope }))
 *     .reduce((a, b) => mergeMoments(a, b, { device: scope })));
 * console.assert(moments.count === 6 && device.owns(moments.data));
 * ```
 */
export function mergeMoments<A>(
  a: LocalMoments<A>,
  b: LocalMoments<A>,
  effects: { readonly device: Device<A> },
): LocalMoments<A> {
  const action = "merge the moments";
  const { device } = checkDevice(effects, action);
  for (const [moments, name] of [[a, "first"], [b, "second"]] as const) {
    checkMoments(device, moments, action, `the ${name} moments`);
    if (moments.kind === "local") continue;
    const kinds = `kinds are ${shown(a.kind)} and ${shown(b.kind)}; merge before allReduceMoments`;
    throw refused(action, "both must be those of this rank's batches", kinds);
  }
  const [channels, others] = [a.shape[1], b.shape[1]];
  if (channels !== others) {
    throw wrongPair(action, "their channels must be equal", channels, others);
  }
  if ((a.positives === undefined) !== (b.positives === undefined)) {
    throw refused(action, "both must count by weight, or none", "ones are of either kind");
  }
  const data = device.merge(a.data, b.data);
  const sum = (a: number | null, b: number | null) => a === null || b === null ? null : a + b;
  return Object.freeze({
    ...{ kind: "local", data, shape: a.shape, count: sum(a.count, b.count) },
    ...(a.positives !== undefined && { positives: sum(a.positives, b.positives ?? null) }),
  });
}

/**
 * Merges the moments of all ranks: one readback, one collective, one upload, of [count, mean C, m2 C] in float64.
 *
 * @param moments this rank's moments; they are not changed
 * @param effects `device`: where they live; `group`: the ranks to merge with
 * @returns frozen moments with the same bits on every rank, whose array is the caller's
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective, did something
 * else, or did not arrive
 *
 * @example
 * ```ts
 * import { allReduceMoments, batchMoments, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const counts = await runRanks(2, async (group) => {
 *   const own = batchMoments(tensor(device, [group.rank, 5], [2, 1]), { device });
 *   return (await allReduceMoments(own, { device, group })).count;
 * });
 * assert.deepEqual(counts, [4, 4]);
 * ```
 */
export async function allReduceMoments<A>(
  moments: LocalMoments<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<GroupMoments<A>> {
  return await overGroup(effects, options, reduction(moments));
}

/**
 * {@linkcode allReduceMoments} on a thread that may be held up: a worker, a process of MPI.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported" on every rank where a device cannot read back
 * at once
 */
export function allReduceMomentsBlocking<A>(
  moments: LocalMoments<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
): GroupMoments<A> {
  return overBlockingGroup(effects, reduction(moments));
}

function reduction<A>(moments: LocalMoments<A>): Crossing<A, GroupMoments<A>> {
  const action = "reduce the moments";
  const channels = moments?.shape?.[1];
  const format = momentsFormat(moments ?? {});
  return {
    action,
    label: `allReduceMoments C=${shown(channels)}${format === momentsWire ? "" : " weighted"}`,
    format,
    channels: [channels],
    alone: (device) => {
      checkMoments(device, moments, action, "the moments");
      // A copy: results never alias arguments.
      return compose(device, (d) => {
        const form = formatOn(d, format);
        const nothing = d.fromWire(form, new Float64Array(form.length(channels)));
        const data = d.merge(moments.data, nothing);
        d.free(nothing);
        return alone({ ...moments, data });
      });
    },
    launch: (scope, worldSize, read) => {
      checkMoments(scope, moments, action, "the moments");
      const conclude = ([total]: readonly Float64Array[]) =>
        groupMoments(scope, total, channels, worldSize, format);
      return { wires: [read(scope, moments.data)], conclude };
    },
  };
}

/** Checks moments: a record as of {@linkcode batchMoments}, live on the device, of so many channels if that is given. */
export function checkMoments<A>(
  device: Device<A>,
  moments: Moments<A>,
  action: string,
  name: string,
  channels: unknown = moments?.shape?.[1],
): void {
  const { shape, count, positives, kind } = (moments ?? {}) as Partial<
    LocalMoments<A> | GroupMoments<A>
  >;
  if ((kind !== "local" && kind !== "group") || !Array.isArray(shape)) {
    throw wrongKind(action, `${name} must be a record as of batchMoments`, moments);
  }
  if (shape[0] !== 1 || shape[1] !== channels || !Number.isSafeInteger(channels)) {
    throw wrongKind(action, `${name} must be of shape (1, ${shown(channels)})`, shape, "shape");
  }
  const whole = positives === undefined ? count : positives;
  if (whole !== null) checkInteger(whole, `the count of ${name}`, action, 0);
  if (count !== null && !(Number.isFinite(count) && count! >= 0)) {
    throw wrongValue(action, `the count of ${name} must be finite and >= 0`, count);
  }
  const { length } = describe(device, moments.data, action, name);
  // One number more says how many weights are positive.
  const own = formatOn(device, momentsWire).length(channels as number);
  const wanted = own + (positives === undefined ? 0 : 1);
  if (length === wanted) return;
  throw refused(action, `${name} must hold ${wanted} numbers`, `array holds ${length}`);
}

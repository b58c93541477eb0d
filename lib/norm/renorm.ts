/**
 * Batch renormalization: training that normalizes as evaluation will, as far as its bounds allow.
 *
 * y = (xhat * r + d) * weight + bias, where r and d are constants of the batch, is a normalization by weight * r and weight * d +
 * bias: forward and backward are the plain ones with those, made on the host from one readback of the statistics and the
 * state. The bounds are the caller's, since they belong to the training, not to the state.
 */

import { checkDevice } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { BlockingGroup, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import type { Wire } from "../exchange.ts";
import { checkCount } from "../moments.ts";
import { compose, region } from "../ownership.ts";
import { type BatchNormState, withParameters } from "../state.ts";
import { fixed, type Tensor } from "../tensor.ts";
import { countOf, momentsWire, plainOf } from "../wire.ts";
import { refused, shown } from "../words.ts";
import { boundAt, checkBounds, type RenormBounds } from "./bounds.ts";
import { checkCall, checkKept, checkRounds } from "./check_call.ts";
import type { ForwardOptions, SyncForwardOptions } from "./forward.ts";
import { type GroupSaved, type LocalSaved, normalized } from "./normalize.ts";
import { advance } from "./running.ts";
import {
  alone,
  type GroupMoments,
  groupMoments,
  type LocalMoments,
  momentsOf,
} from "./statistics.ts";
import { type Crossing, overBlockingGroup, overGroup, type Read, whenRead } from "./steps.ts";
import { travelling, weighed } from "./weights.ts";

/** Options of a renormalizing forward pass. */
export interface RenormOptions<A> extends ForwardOptions<A>, RenormBounds {}

/** Options of a synchronised renormalizing forward pass. */
export interface SyncRenormOptions<A>
  extends RenormOptions<A>, Pick<SyncForwardOptions<A>, "signal"> {}

/** What a renormalizing forward saves. `r`, `d`, and the weight and bias of `normalization` belong to it. */
export interface RenormSaved<A, S extends LocalSaved<A> | GroupSaved<A>> {
  /** Sets it apart from a plain forward's. */
  readonly kind: "renorm";
  /** What the normalization by weight * r and weight * d + bias saved. */
  readonly normalization: S;
  /** Ratio of the batch's standard deviation to the running one, within its bounds: (C), float32. */
  readonly r: A;
  /** Distance of the batch's mean from the running one in running standard deviations, within its bounds: (C), float32. */
  readonly d: A;
  /** Which parameters the state has. */
  readonly learns: { readonly weight: boolean; readonly bias: boolean };
}

/** What a renormalizing forward resolves to. */
export interface RenormForward<A, S extends LocalSaved<A> | GroupSaved<A>> {
  /** The normalized batch of this rank, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** The state after this batch; the given one where nothing changed. */
  readonly state: BatchNormState<A>;
  /** The statistics of the batch. They belong to `saved` too: free them once. */
  readonly moments: S["moments"];
  /** What backward needs. */
  readonly saved: RenormSaved<A, S>;
}

const ACTION = "renormalize the batch";
const OPTIONS = [
  ...["rmax", "dmax", "activation", "residual", "weights", "lengths", "updateRunningStats"],
  ...["signal", "donate"],
];

/**
 * Normalizes a batch with its own statistics, corrected towards the running ones (Ioffe 2017, "Batch Renormalization",
 * algorithm 1).
 *
 * With sigma = sqrt(running variance + eps): y = (xhat * r + d) * weight + bias, where r = clip(batch's deviation / sigma) to
 * [1 / rmax, rmax] and d = clip((mean - running mean) / sigma) to [-dmax, dmax], by the statistics before this batch; then the
 * residual and the activation. Both are constants to the gradient. One readback. Where examples have weights, the batch's
 * deviation and mean are those by weight; where none counts, r is 1 and d is 0.
 *
 * @param state the state before this batch, which must track running statistics; it is not changed
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16
 * @param effects `device`: where everything lives
 * @param options `rmax` and `dmax`, as numbers or ramps over the counter; those of `batchNormForward`
 * @returns output, new state, moments, and what `batchRenormBackward` needs, all frozen
 * @throws (rejects with) what `batchNormForward` throws; RangeError or TypeError for impossible bounds, TypeError for a
 * state that tracks nothing
 *
 * @example
 * ```ts
 * import { batchRenormForward, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const x = tensor(device, [1, 5], [2, 1]); // mean 3 and deviation 2, against 0 and 1
 * const { output } = await batchRenormForward(state, x, { device }, { rmax: 1.5, dmax: 0.5 });
 * assert.deepEqual(await toArray(device, output), Float32Array.of(-1, 2));
 * ```
 */
export async function batchRenormForward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: RenormOptions<A>,
): Promise<RenormForward<A, LocalSaved<A>>> {
  const { device } = checkDevice(effects, ACTION);
  const call = { stateOf: () => state, input, options };
  return await region(device, (scope) => {
    const { moments, wires, finish } = begin(scope, call, (d, data) => d.toWire(data));
    return whenRead(wires, ([total, ...vectors]) => finish<LocalSaved<A>>(moments, total, vectors));
  });
}

/**
 * {@linkcode batchRenormForward} with the statistics of all ranks of the group: the law of `syncBatchNormForward` holds, and
 * r and d are the same on all ranks. One collective.
 *
 * @param effects `device` and `group`
 * @throws (rejects with) what `syncBatchNormForward` rejects with
 */
export async function syncBatchRenormForward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncRenormOptions<A>,
): Promise<RenormForward<A, GroupSaved<A>>> {
  const call = { stateOf: () => state, input, options };
  return await overGroup(effects, options, renormForward(call, labelOf(state, input)));
}

/** {@linkcode syncBatchRenormForward} on a thread that may be held up. */
export function syncBatchRenormForwardBlocking<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: RenormOptions<A>,
): RenormForward<A, GroupSaved<A>> {
  const crossing = renormForward({ stateOf: () => state, input, options }, labelOf(state, input));
  // What is read at once is not awaited.
  return overBlockingGroup(effects, crossing) as RenormForward<A, GroupSaved<A>>;
}

const labelOf = <A>(state: BatchNormState<A>, input: Tensor<A>) =>
  `syncBatchRenormForward C=${shown(state?.numFeatures)} ${input?.dtype}`;

/** A renormalizing forward pass. */
export interface RenormCall<A> {
  /** Finds or makes the state on a handle, in the turn of the call. */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  readonly input: Tensor<A>;
  readonly options: RenormOptions<A>;
}

/** {@linkcode syncBatchRenormForward} as a crossing; the label is what the ranks compare. */
export function renormForward<A>(
  call: RenormCall<A>,
  label: string,
): Crossing<A, RenormForward<A, GroupSaved<A>> | Promise<RenormForward<A, GroupSaved<A>>>> {
  const { input, options } = call;
  const { format, ...how } = travelling(options, label);
  return {
    action: ACTION,
    ...{ ...how, format },
    channels: [input?.shape?.[1]],
    alone: (device, read) =>
      region(device, (scope) => {
        const { moments, wires, finish } = begin(scope, call, read);
        return whenRead(wires, ([total, ...vectors]) =>
          finish<GroupSaved<A>>(alone(moments), total, vectors));
      }),
    launch: (scope, worldSize, read) => {
      const { moments: own, wires: [wire, ...vectors], finish } = begin(scope, call, read);
      const conclude = ([total]: readonly Float64Array[]) =>
        whenRead(vectors, (vectors) => {
          const moments = groupMoments(scope, total, own.shape[1], worldSize, format);
          return finish<GroupSaved<A>>(moments, total, vectors);
        });
      return { wires: [wire], conclude };
    },
  };
}

/**
 * Checks a call, launches the reduction, and reads its moments and what the state holds; `finish` does the rest, once the
 * moments of all ranks are there.
 */
function begin<A>(device: Device<A>, call: RenormCall<A>, read: Read<A>) {
  const { stateOf, input: given, options } = call;
  const state = stateOf(device);
  checkCall(device, state, given, options, OPTIONS, ACTION);
  checkRounds(device, ACTION);
  checkKept(options, ACTION);
  checkBounds(options, ACTION);
  checkOneOf(options.updateRunningStats, SWITCH, "updateRunningStats", ACTION);
  const { runningMean, runningVar } = state;
  if (runningMean === null || runningVar === null) {
    throw refused(ACTION, "it must track running statistics", "runningMean is null");
  }
  const { format } = travelling(options, "");
  // Snapshots: nobody may change what was checked while the numbers are on their way.
  const [before, chosen] = [{ ...state }, { ...weighed(device, given, options, ACTION) }];
  const input = fixed(given);
  const { moments, wires } = compose(device, (d) => {
    const moments = momentsOf(d, input, chosen, ACTION);
    // A vector is a batch of one sample, whose mean it is: so it is read as moments are, at once where they are.
    const vectorOf = (data: A | null): Wire =>
      data === null ? new Float64Array() : read(d, d.moments({ input: rowOf(d, data) }));
    const vectors = [runningMean, runningVar, state.weight, state.bias].map(vectorOf);
    return { moments, wires: [read(d, moments.data), ...vectors] };
  });
  // Whoever waits for the moments may hear of another failure first.
  for (const wire of wires) if (wire instanceof Promise) wire.catch(() => {});
  const finish = <S extends LocalSaved<A> | GroupSaved<A>>(
    own: LocalMoments<A> | GroupMoments<A>,
    total: Float64Array,
    vectors: readonly Float64Array[],
  ): RenormForward<A, S> => {
    format.checkOwn?.(total, ACTION);
    checkCount(countOf(total), ACTION);
    const [positives, count] = total;
    const moments = format === momentsWire ? own : Object.freeze({ ...own, positives, count });
    const channels = before.numFeatures;
    const [mean, variance, weight, bias] = vectors.map((wire) => wire.subarray(1, 1 + channels));
    const { r, d } = correction(before, plainOf(format, total), { mean, variance }, chosen);
    const vector = (value: (c: number) => number) => Float32Array.from(r, (_, c) => value(c));
    return compose(device, (device) => {
      const corrected = withParameters(before, {
        weight: device.upload(vector((c) => (weight[c] ?? 1) * r[c])),
        bias: device.upload(vector((c) => (weight[c] ?? 1) * d[c] + (bias[c] ?? 0))),
      });
      const { output, saved } = normalized(device, corrected, input, moments, chosen);
      const next = chosen.updateRunningStats === false ? before : advance(device, before, moments);
      return Object.freeze({
        output,
        state: next === before ? state : next,
        moments,
        saved: Object.freeze({
          kind: "renorm" as const,
          normalization: saved as S,
          r: device.upload(vector((c) => r[c])),
          d: device.upload(vector((c) => d[c])),
          learns: Object.freeze({ weight: before.weight !== null, bias: before.bias !== null }),
        }),
      });
    });
  };
  return { moments, wires, finish };
}

/** A vector as a batch of one sample. */
export function rowOf<A>(device: Device<A>, data: A): Tensor<A> {
  const shape = [1, device.describe(data).length];
  return { data, shape, dtype: "float32", format: "channelsFirst" };
}

/** r and d of each channel, from [count, mean C, m2 C] of the batch. */
function correction<A>(
  { eps, numBatchesTracked, numFeatures: channels }: BatchNormState<A>,
  moments: Float64Array,
  { mean, variance }: { readonly mean: Float64Array; readonly variance: Float64Array },
  { rmax, dmax }: RenormBounds,
) {
  const [count] = moments;
  const [ratio, distance] = [rmax, dmax].map((bound) => boundAt(bound, numBatchesTracked + 1));
  const clip = (value: number, least: number, most: number) =>
    Math.max(least, Math.min(most, value));
  const [r, d] = [new Float64Array(channels).fill(1), new Float64Array(channels)];
  for (let c = 0; c < channels && count > 0; c++) {
    const sigma = Math.sqrt(variance[c] + eps);
    const own = Math.sqrt(moments[1 + channels + c] / count + eps);
    const away = moments[1 + c] - mean[c];
    // Of two constants without eps the ratio is 1, and no distance is none.
    r[c] = clip(own === sigma ? 1 : own / sigma, 1 / ratio, ratio);
    d[c] = clip(away === 0 ? 0 : away / sigma, -distance, distance);
  }
  return { r, d };
}

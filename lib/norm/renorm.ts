/**
 * Batch renormalization: training that normalizes as evaluation will, as far as its bounds allow.
 *
 * y = (xhat * r + d) * weight + bias, where r and d are constants of the batch, is a normalization by weight * r and weight * d +
 * bias: forward and backward are the plain ones with those, made on the host from one readback. The bounds are the
 * caller's, since they belong to the training, not to the state.
 */

import { checkDevice } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkCount } from "../moments.ts";
import { batch, region } from "../ownership.ts";
import { type BatchNormState, withParameters } from "../state.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { countOf, momentsWire } from "../wire.ts";
import { refused, shown } from "../words.ts";
import { boundAt, checkBounds, type RenormBounds } from "./bounds.ts";
import { checkCall, checkKept, checkRounds } from "./check_call.ts";
import type { ForwardOptions, SyncForwardOptions } from "./forward.ts";
import { type GroupSaved, type LocalSaved, normalized } from "./normalize.ts";
import { advance } from "./running.ts";
import { type GroupMoments, groupMoments, type LocalMoments, momentsOf } from "./statistics.ts";
import { type Crossing, overGroup } from "./steps.ts";
import type { WeightOptions } from "./weights.ts";

/** Options of a renormalizing forward pass. */
export interface RenormOptions<A>
  extends Omit<ForwardOptions<A>, keyof WeightOptions<A>>, RenormBounds {}

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
  ...["rmax", "dmax", "activation", "residual", "updateRunningStats", "signal", "donate"],
];

/**
 * Normalizes a batch with its own statistics, corrected towards the running ones (Ioffe 2017, "Batch Renormalization",
 * algorithm 1).
 *
 * With sigma = sqrt(running variance + eps): y = (xhat * r + d) * weight + bias, where r = clip(batch's deviation / sigma) to
 * [1 / rmax, rmax] and d = clip((mean - running mean) / sigma) to [-dmax, dmax], by the statistics before this batch; then the
 * residual and the activation. Both are constants to the gradient. One readback.
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
  return await region(device, async (scope) => {
    const { moments, wire, finish } = begin(
      scope,
      state,
      input,
      options,
      (d, data) => d.toWire(data),
    );
    return finish<LocalSaved<A>>(moments, await wire);
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
  const label = `syncBatchRenormForward C=${shown(state?.numFeatures)} ${input?.dtype}`;
  return await overGroup(
    effects,
    options,
    renormForward({ stateOf: () => state, input, options }, label),
  );
}

/** A renormalizing forward pass. */
export interface RenormCall<A> {
  /** Finds or makes the state on a handle, in the turn of the call. */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  readonly input: Tensor<A>;
  readonly options: RenormOptions<A>;
}

/** {@linkcode syncBatchRenormForward} as a crossing; the label is what the ranks compare. */
export function renormForward<A>(
  { stateOf, input, options }: RenormCall<A>,
  label: string,
): Crossing<A, Promise<RenormForward<A, GroupSaved<A>>>> {
  return {
    action: ACTION,
    label,
    format: momentsWire,
    channels: [input?.shape?.[1]],
    alone: (device) =>
      region(device, async (scope) => {
        const state = stateOf(scope);
        const begun = begin(scope, state, input, options, (d, data) => d.toWire(data));
        const moments = { ...begun.moments, kind: "group", worldSize: 1 } as const;
        return begun.finish<GroupSaved<A>>(Object.freeze(moments), await begun.wire);
      }),
    launch: (scope, worldSize, read) => {
      const { wire, finish, moments: own } = begin(scope, stateOf(scope), input, options, read);
      const conclude = ([total]: readonly Float64Array[]) =>
        finish<GroupSaved<A>>(groupMoments(scope, total, own.shape[1], worldSize), total);
      return { wires: [wire], conclude };
    },
  };
}

/** Checks and launches the reduction; `finish` does the rest, once the wire of all ranks is there. */
function begin<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  given: Tensor<A>,
  options: RenormOptions<A>,
  read: (device: Device<A>, array: A) => Float64Array | Promise<Float64Array>,
) {
  checkCall(device, state, given, options, OPTIONS, ACTION);
  checkRounds(device, ACTION);
  checkKept(options, ACTION);
  checkBounds(options, ACTION);
  checkOneOf(options.updateRunningStats, SWITCH, "updateRunningStats", ACTION);
  const { runningMean, runningVar } = state;
  if (runningMean === null || runningVar === null) {
    throw refused(ACTION, "it must track running statistics", "runningMean is null");
  }
  // Snapshots: nobody may change what was checked while the numbers are on their way.
  const [before, chosen] = [{ ...state }, { ...options }];
  const input = tensorLike(given, given.data);
  const { moments, wire, vectors } = batch(device, (d) => {
    const moments = momentsOf(d, input);
    const all = [runningMean, runningVar, state.weight, state.bias];
    const vectors = Promise.all(all.map((vector) => vector && d.download(vector)));
    return { moments, wire: read(d, moments.data), vectors };
  });
  vectors.catch(() => {}); // Whoever waits for the wire hears of it below.
  const finish = async <S extends LocalSaved<A> | GroupSaved<A>>(
    moments: LocalMoments<A> | GroupMoments<A>,
    total: Float64Array,
  ): Promise<RenormForward<A, S>> => {
    checkCount(countOf(total), ACTION);
    const [mean, variance, weight, bias] = await vectors;
    const { r, d } = correction(before, total, mean!, variance!, chosen);
    const vector = (value: (c: number) => number) => Float32Array.from(r, (_, c) => value(c));
    return batch(device, (device) => {
      const corrected = withParameters(before, {
        weight: device.upload(vector((c) => (weight?.[c] ?? 1) * r[c])),
        bias: device.upload(vector((c) => (weight?.[c] ?? 1) * d[c] + (bias?.[c] ?? 0))),
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
          learns: Object.freeze({ weight: weight !== null, bias: bias !== null }),
        }),
      });
    });
  };
  return { moments, wire, finish };
}

/** r and d of each channel. */
function correction<A>(
  { eps, numBatchesTracked }: BatchNormState<A>,
  total: Float64Array,
  mean: Float32Array,
  variance: Float32Array,
  { rmax, dmax }: RenormBounds,
) {
  const channels = mean.length;
  const count = countOf(total);
  const [ratio, distance] = [rmax, dmax].map((bound) => boundAt(bound, numBatchesTracked + 1));
  const clip = (value: number, least: number, most: number) =>
    Math.max(least, Math.min(most, value));
  const [r, d] = [new Float64Array(channels).fill(1), new Float64Array(channels)];
  for (let c = 0; c < channels && count > 0; c++) {
    const sigma = Math.sqrt(variance[c] + eps);
    const own = Math.sqrt(total[1 + channels + c] / count + eps);
    const away = total[1 + c] - mean[c];
    // Of two constants without eps the ratio is 1, and no distance is none.
    r[c] = clip(own === sigma ? 1 : own / sigma, 1 / ratio, ratio);
    d[c] = clip(away === 0 ? 0 : away / sigma, -distance, distance);
  }
  return { r, d };
}

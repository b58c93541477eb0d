/**
 * Training backward of a loss that depends on the statistics of the batch too, which forward returns as values: distillation,
 * style losses, penalties on them.
 *
 * Functions of their own, as whoever trains without needs none of this in a bundle. What the statistics owe to the input is
 * added in a pass of its own, since its coefficients have no place in those of gradInput where a weight is 0.
 */

import { checkDevice, checkOptions } from "../check_effects.ts";
import type { BlockingGroup, ReduceGroup } from "../collectives.ts";
import type { Device, GradientsPass } from "../device.ts";
import { compose } from "../ownership.ts";
import { fixed, type Tensor, tensorLike } from "../tensor.ts";
import { sumsWire } from "../wire.ts";
import {
  type Backward,
  type BackwardOptions,
  gradientsOf,
  type SyncBackwardOptions,
} from "./backward.ts";
import { checkPass, checkVector } from "./check_call.ts";
import { type BackwardCall, checkDonated, checkSaved } from "./check_saved.ts";
import { passOf, readTogether, vectorAsSums } from "./directions.ts";
import type { GroupSaved, LocalSaved, Saved } from "./normalize.ts";
import { type Crossing, overBlockingGroup, overGroup, type Read } from "./steps.ts";
import { type Weights, withWeights } from "./weights.ts";

/** Gradients of a loss by the statistics of the batch. */
export interface MomentsGradients<A> {
  /** Gradient by the mean, shape (C), float32; left out where the loss does not depend on it. */
  readonly dmean?: A | null;
  /** Gradient by the biased variance, m2 / count, shape (C), float32; left out where the loss does not depend on it. */
  readonly dvariance?: A | null;
}

const ACTION = "compute the gradients of output and statistics";

/**
 * Computes what `batchNormBackward` does, of a loss that depends on the statistics of the batch too.
 *
 * To gradInput comes dmean/N + 2 * (x - mean) * dvariance/N per channel, times the weight of an example where there are some, N
 * being their sum. Synchronous: nothing is read back.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output, in its shape and dtype, any format
 * @param moments gradients by mean and biased variance of `saved.moments`, on the device
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws TypeError where arguments do not fit or are no longer there; DeviceError "unsupported" where the device lacks the pass
 *
 * @example The gradient of the mean alone
 * ```ts
 * import { batchNormBackwardMoments, batchNormForward, initBatchNorm } from "@syncbn/syncbn";
 * import { referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const [x, dy] = [[1, 2, 6], [0, 0, 0]].map((values) => tensor(device, values, [3, 1]));
 * const { saved } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const dmean = device.upload(Float32Array.of(3));
 * const { gradInput } = batchNormBackwardMoments(saved, dy, { dmean }, { device });
 * assert.deepEqual(await toArray(device, gradInput), Float32Array.of(1, 1, 1));
 * ```
 */
export function batchNormBackwardMoments<A>(
  saved: LocalSaved<A>,
  gradOutput: Tensor<A>,
  moments: MomentsGradients<A>,
  effects: { readonly device: Device<A> },
  options: BackwardOptions = {},
): Backward<A> {
  const { device } = checkDevice(effects, ACTION);
  const call = { saved, gradOutput, options, action: ACTION };
  check(device, "local", call, moments);
  return alone(device, call, moments);
}

/**
 * Computes what `syncBatchNormBackward` does, of a loss that depends on the statistics of the whole batch too, which all ranks
 * share: the gradients by them are summed over the ranks.
 *
 * One readback, one collective, one upload, of [sumDy C, sumDyXmu C, dmean C, dvariance C] in float64; every rank of forward
 * must call it.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output on this rank, in its shape and dtype, any format
 * @param moments gradients of this rank's loss by mean and biased variance of the group
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns frozen gradients
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: that of
 * {@linkcode batchNormBackwardMoments}), did something else, or did not arrive
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormBackwardMoments, syncBatchNormForward } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const x = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const { output, saved } = await syncBatchNormForward(state, x, { device, group });
 *   const moments = { dvariance: device.upload(Float32Array.of(1, 1)) };
 *   await syncBatchNormBackwardMoments(saved, output, moments, { device, group });
 * });
 * ```
 */
export async function syncBatchNormBackwardMoments<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  moments: MomentsGradients<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardOptions = {},
): Promise<Backward<A>> {
  const call = { saved, gradOutput, options, action: ACTION };
  return await overGroup(effects, options, across(call, moments));
}

/**
 * {@linkcode syncBatchNormBackwardMoments} on a thread that may be held up: a worker, a process of MPI. The same collective, the
 * same bits; the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormBackwardMomentsBlocking<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  moments: MomentsGradients<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: BackwardOptions = {},
): Backward<A> {
  return overBlockingGroup(
    effects,
    across({ saved, gradOutput, options, action: ACTION }, moments),
  );
}

function check<A>(
  device: Device<A>,
  kind: "local" | "group",
  call: BackwardCall<A, LocalSaved<A> | GroupSaved<A>>,
  moments: MomentsGradients<A>,
  worldSize?: number,
): void {
  checkSaved(call, kind, device, worldSize, "BackwardMoments");
  checkDonated([call]);
  checkPass(device, "secondOrder", ACTION);
  checkOptions(moments, ["dmean", "dvariance"], ACTION);
  const channels = call.saved.input.shape[1];
  for (const name of ["dmean", "dvariance"] as const) {
    const vector = moments[name];
    if (vector) checkVector(device, vector, channels, ACTION, name);
  }
}

/** A call as it is now: nobody may change what was checked while a collective is under way. */
function given<A>({ saved, gradOutput, options }: BackwardCall<A, Saved<A>>) {
  return {
    ...passOf(saved),
    gradOutput: fixed(gradOutput),
    residualFormat: saved.residualFormat ?? undefined,
    overwrite: options.donate === true,
  };
}

function across<A>(
  call: BackwardCall<A>,
  moments: MomentsGradients<A>,
): Crossing<A, Backward<A>> {
  const input = call.saved?.input;
  const channels = input?.shape?.[1];
  return {
    action: ACTION,
    label: `syncBatchNormBackwardMoments C=${channels} ${input?.dtype}`,
    format: sumsWire,
    channels: [channels, channels],
    alone: (device) => {
      check(device, "group", call, moments, 1);
      return alone(device, call, moments);
    },
    launch: (scope, worldSize, read) => {
      check(scope, "group", call, moments, worldSize);
      const { counted, ...pass } = given(call);
      const { local, wires } = compose(scope, (d) => {
        const local = d.gradientSums(pass);
        return { local, wires: [read(d, local), momentsWireOf(d, moments, channels, read)] };
      });
      const conclude = ([sums, ofMoments]: readonly Float64Array[]) => {
        const result = compose(scope, (d) => {
          const total = d.fromWire(sumsWire, sums);
          const [mean, variance] = [0, channels].map((from) =>
            d.upload(Float32Array.from(ofMoments.subarray(from, from + channels)))
          );
          return withMoments(d, pass, counted, { local, total }, { mean, variance });
        });
        if (pass.overwrite) scope.free(pass.gradOutput.data);
        return result;
      };
      return { wires, conclude };
    },
  };
}

function alone<A>(
  device: Device<A>,
  call: BackwardCall<A, Saved<A>>,
  { dmean = null, dvariance = null }: MomentsGradients<A>,
): Backward<A> {
  const { counted, ...pass } = given(call);
  const scratch = pass.overwrite ? [pass.gradOutput.data] : [];
  const result = compose(device, (d) => {
    const local = d.gradientSums(pass);
    scratch.push(local);
    const moments = { mean: dmean, variance: dvariance };
    return withMoments(d, pass, counted, { local, total: local }, moments);
  });
  device.free(...scratch);
  return result;
}

/** [dmean C, dvariance C] of this rank, where there is none 0. */
function momentsWireOf<A>(
  device: Device<A>,
  { dmean, dvariance }: MomentsGradients<A>,
  channels: number,
  read: Read<A>,
): Float64Array | Promise<Float64Array> {
  const vectors = [dmean, dvariance].map((vector) => vector ?? null);
  const reads = vectors.flatMap((v) => v === null ? [] : [read(device, vectorAsSums(device, v))]);
  return readTogether(reads, (wires) => {
    const joined = new Float64Array(2 * channels);
    let next = 0;
    vectors.forEach((vector, i) => {
      if (vector !== null) joined.set(wires[next++].subarray(0, channels), i * channels);
    });
    return joined;
  });
}

/** Gradients, and to gradInput what the statistics owe to the input. */
function withMoments<A>(
  device: Device<A>,
  pass: Omit<GradientsPass<A>, "sums">,
  counted: Weights<A>,
  sums: { readonly local: A; readonly total: A },
  moments: { readonly mean: A | null; readonly variance: A | null },
): Backward<A> {
  const { input, statistics, affine } = pass;
  return withWeights(device, input, counted, (weights) => {
    const { gradInput, ...others } = gradientsOf(device, { ...pass, sums, weights });
    const directions = { weight: null, bias: null, residual: gradInput };
    const owed = { input, statistics, affine, directions, total: null, moments, weights };
    const data = device.tangents!(owed);
    device.free(gradInput.data);
    return Object.freeze({ gradInput: tensorLike(input, data), ...others });
  });
}

/** Training backward: gradients of a batch that was normalized with its own statistics, or with those of the group. */

import { rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device, GradientsPass } from "../device.ts";
import { compose } from "../ownership.ts";
import { fixed, type Tensor, tensorLike } from "../tensor.ts";
import { formatOn, sumsWire } from "../wire.ts";
import { type BackwardCall, checkDonated, checkSaved } from "./check_saved.ts";
import type { GroupSaved, LocalSaved, Saved } from "./normalize.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";
import { isWeighted, type Weights, withWeights } from "./weights.ts";

/** Options of a backward pass. */
export interface BackwardOptions {
  /**
   * Gives gradOutput up: gradInput may be written over it, which saves a pass over memory, and its array is freed when
   * the call succeeds, on every device. A call that throws leaves it the caller's. False by default.
   */
  readonly donate?: boolean;
}

/** What gradients of gradients may take from a backward pass. */
export interface KeepSums {
  /** Whether the result has `sums`, for `batchNormBackwardBackward`. False by default. */
  readonly keepSums?: boolean;
}

/** (sumDy, sumDyXmu) per channel as a device has them; `device.free` takes both. */
export interface KeptSums<A> {
  /** Those of this rank. */
  readonly local: A;
  /** Those of the group: of one rank alone the same array. */
  readonly total: A;
}

/** Options of a synchronised backward pass. */
export interface SyncBackwardOptions extends BackwardOptions, Pick<CollectiveOptions, "signal"> {}

/** Gradients of one rank. Those of weight and bias are of this rank's part of the batch alone. */
export interface Backward<A> {
  /** Gradient of the input, in the input's shape, dtype and format. */
  readonly gradInput: Tensor<A>;
  /** Gradient of the weight, shape (C), float32; zeros for an empty batch; null where there was no weight. */
  readonly gradWeight: A | null;
  /** Gradient of the bias, shape (C), float32; zeros for an empty batch; null where there was no bias. */
  readonly gradBias: A | null;
  /** Gradient of the residual, in its shape, dtype and format; missing where there was none. */
  readonly gradResidual?: Tensor<A>;
  /**
   * Gradients of weight and bias of the whole group, the same on every rank, of an exact device: the sum of what the ranks have rounded
   * would depend on the partition. Missing elsewhere, and in evaluation.
   */
  readonly group?: { readonly gradWeight: A | null; readonly gradBias: A | null };
  /** What gradients of gradients may take, where `keepSums` said so; missing elsewhere. */
  readonly sums?: KeptSums<A>;
}

const ACTION = "compute the gradients";

/**
 * Computes the gradients of {@linkcode batchNormForward}.
 *
 * Per channel, with s = 1/sqrt(variance + eps) and N values:
 * gradInput = weight*s * (dy - sumDy/N - (x - mean) * s^2 * sumDyXmu/N), gradWeight = s * sumDyXmu, gradBias = sumDy.
 * Where examples had weights w, of the sum W, both terms behind dy are w times as large, and N is W: sums of dy are of all
 * positions, since output is everywhere.
 * Synchronous: nothing is read back, all launches go out together.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws TypeError where saved or gradOutput do not fit, the arrays borrowed by saved were freed, or one of
 * them is to be given up as gradOutput
 *
 * @example
 * ```ts
 * import { batchNormBackward, batchNormForward, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { saved } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const dy = tensor(device, [1, 0, 0], [3, 1]);
 * const { gradBias } = batchNormBackward(saved, dy, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(1));
 * ```
 */
export function batchNormBackward<A>(
  saved: LocalSaved<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: BackwardOptions & KeepSums = {},
): Backward<A> {
  const { device } = checkDevice(effects, ACTION);
  const call = { saved, gradOutput, options, action: ACTION };
  checkSaved(call, "local", device);
  checkDonated([call]);
  return backwardsAlone([call], device)[0];
}

/**
 * Computes the gradients of {@linkcode syncBatchNormForward} for this rank's part of the batch.
 *
 * The formulas are those of {@linkcode batchNormBackward}, with sumDy, sumDyXmu and N over all ranks in gradInput.
 * gradWeight and gradBias stay this rank's own: data parallelism sums them with all other gradients. An exact device gives those
 * of the group too, as `group`. One readback, one collective, one upload, of [sumDy C, sumDyXmu C] in float64; every rank of forward
 * must call it.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output on this rank, in its shape and dtype, any format
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns frozen gradients
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: for
 * a wrong shape the TypeError of {@linkcode batchNormBackward}), did something else, or did not arrive. What fails after
 * it, such as a lost device, is this rank's own error; the others learn of it at their next collective
 *
 * @example A training step of one replica
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormBackward, syncBatchNormForward } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const x = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const { output, saved } = await syncBatchNormForward(state, x, { device, group });
 *   const { gradInput } = await syncBatchNormBackward(saved, output, { device, group });
 *   console.assert(gradInput.shape.length === 2);
 * });
 * ```
 */
export async function syncBatchNormBackward<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardOptions & KeepSums = {},
): Promise<Backward<A>> {
  const [backward] = await overGroup(effects, options, oneBackward(saved, gradOutput, options));
  return backward;
}

/**
 * {@linkcode syncBatchNormBackward} on a thread that may be held up: a worker, a process of MPI. The same collective, the same
 * bits; the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormBackwardBlocking<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: BackwardOptions & KeepSums = {},
): Backward<A> {
  return overBlockingGroup(effects, oneBackward(saved, gradOutput, options))[0];
}

function oneBackward<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  options: BackwardOptions & KeepSums,
) {
  const label = `syncBatchNormBackward C=${saved?.input?.shape?.[1]} ${saved?.input?.dtype}`;
  return backwards([{ saved, gradOutput, options, action: ACTION }], label);
}

/** {@linkcode syncBatchNormBackward} of batch norms that are ready together; the label is what the ranks compare. */
export function backwards<A>(
  calls: readonly BackwardCall<A>[],
  label: string,
): Crossing<A, readonly Backward<A>[]> {
  const check = (device: Device<A>, worldSize: number): void => {
    for (const call of calls) checkSaved(call, "group", device, worldSize);
    checkDonated(calls);
  };
  return {
    action: ACTION,
    label,
    format: sumsWire,
    channels: calls.map(({ saved }) => saved?.input?.shape?.[1]),
    tidy: true,
    alone: (device) => {
      check(device, 1);
      return backwardsAlone(calls, device);
    },
    launch: (scope, worldSize, read) => {
      check(scope, worldSize);
      const snapshots = calls.map(snapshot);
      const { locals, wires } = compose(scope, (d) => {
        const locals = snapshots.map((call) => d.gradientSums(passOf(call)));
        return { locals, wires: locals.map((local) => read(d, local)) };
      });
      const conclude = (totals: readonly Float64Array[]) => {
        const scratch = donatedOf(snapshots);
        const results = compose(scope, (d) =>
          snapshots.map((call, i) => {
            const sums = { local: locals[i], total: d.fromWire(formatOn(d, sumsWire), totals[i]) };
            if (call.options.keepSums !== true) scratch.push(sums.local, sums.total);
            return gradientsWith(d, call, sums);
          }));
        // At once: another call that has waited with this one must not read what may be overwritten.
        scope.free(...scratch);
        return results;
      };
      return { wires, made: locals, conclude };
    },
  };
}

/** Nobody may change what was checked while the collective is under way. */
function snapshot<A>(call: BackwardCall<A>): BackwardCall<A> {
  const { saved, gradOutput, options } = call;
  const { input, output } = saved;
  return {
    ...call,
    saved: {
      ...saved,
      input: fixed(input),
      output: output && rectifiedBy(output.activation, output),
    },
    gradOutput: fixed(gradOutput),
    options: { ...options },
  };
}

/** A backward pass whose sums are this rank's own. */
function backwardsAlone<A>(
  calls: readonly BackwardCall<A, Saved<A>>[],
  device: Device<A>,
): readonly Backward<A>[] {
  const scratch = donatedOf(calls);
  const results = compose(device, (d) =>
    calls.map((call) => {
      const local = d.gradientSums(passOf(call));
      if (call.options.keepSums !== true) scratch.push(local);
      return gradientsWith(d, call, { local, total: local });
    }));
  device.free(...scratch);
  return results;
}

/** A call as both passes back take it. */
function passOf<A>(
  { saved, gradOutput, options }: BackwardCall<A, Saved<A>>,
): Omit<GradientsPass<A>, "sums"> {
  const { input, output, moments, weight, bias, eps, residualFormat } = saved;
  return {
    input,
    gradOutput,
    statistics: { source: "batch", moments: moments.data },
    output: output ?? undefined,
    affine: { weight, bias, eps },
    residualFormat: residualFormat ?? undefined,
    overwrite: options.donate === true,
  };
}

/** Gradients of a call, with the sums where it keeps them. */
function gradientsWith<A>(
  device: Device<A>,
  call: BackwardCall<A, Saved<A>>,
  sums: KeptSums<A>,
): Backward<A> {
  const backward = gradientsOf(device, { ...passOf(call), sums }, call.saved);
  if (call.options.keepSums !== true) return backward;
  return Object.freeze({ ...backward, sums: Object.freeze(sums) });
}

/** Runs the pass that ends the way back, by the weights that forward had, and gives its arrays the meaning of tensors. */
export function gradientsOf<A>(
  device: Device<A>,
  pass: GradientsPass<A>,
  weights: Weights<A> = {},
): Backward<A> {
  const { input, gradOutput, residualFormat: format } = pass;
  const arrays = isWeighted(weights)
    ? withWeights(device, input, weights, (weights) => device.gradients({ ...pass, weights }))
    : device.gradients(pass);
  const { gradInput, gradWeight, gradBias, gradResidual, groupWeight, groupBias } = arrays;
  const plain = { gradInput: tensorLike(input, gradInput), gradWeight, gradBias };
  const own = gradResidual !== null && format !== undefined
    ? { ...plain, gradResidual: tensorLike({ ...gradOutput, format }, gradResidual) }
    : plain;
  return Object.freeze(
    groupWeight === undefined
      ? own
      : { ...own, group: Object.freeze({ gradWeight: groupWeight, gradBias: groupBias! }) },
  );
}

function donatedOf<A>(calls: readonly BackwardCall<A, Saved<A>>[]): A[] {
  return calls.filter(({ options }) => options.donate === true).map(({ gradOutput }) =>
    gradOutput.data
  );
}

/**
 * Training backward: gradients of a batch that was normalized with its own statistics, or with those of the group.
 *
 * @module
 */

import { checkAlike, checkWire } from "./checks.ts";
import type { CollectiveOptions, ReduceGroup } from "./collectives.ts";
import type { Device, GradientArrays, GradientSums, Statistics } from "./device.ts";
import { type Gated, gradients, gradientSums, tensorLike, ungate } from "./epilogue.ts";
import type { GroupResiduals, LocalResiduals, Residuals } from "./forward.ts";
import { sum } from "./moments.ts";
import { batch, region } from "./ownership.ts";
import type { Tensor } from "./tensor.ts";

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
}

/** Options of a local backward pass: none yet. */
export type BackwardOptions = Readonly<Record<never, never>>;

/** Options of a synchronised backward pass. */
export interface SyncBackwardOptions extends Pick<CollectiveOptions, "signal"> {}

const ACTION = "compute the gradients";

/**
 * Computes the gradients of {@linkcode batchNormForward}.
 *
 * Per channel, with s = 1/sqrt(variance + eps) and N values:
 * gradInput = weight*s * (dy - sumDy/N - (x - mean) * s^2 * sumDyXmu/N), gradWeight = s * sumDyXmu, gradBias = sumDy.
 * Synchronous: nothing is read back, all launches go out together.
 *
 * @param residuals what forward returned; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @param _options none yet
 * @returns frozen gradients
 * @throws TypeError where residuals or gradOutput do not fit, or the arrays borrowed by the residuals were freed
 *
 * @example
 * ```ts
 * import {
 *   batchNormBackward,
 *   batchNormForward,
 *   initBatchNorm,
 *   referenceDevice,
 *   tensor,
 * } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1);
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { residuals } = batchNormForward(state, x, { device });
 * const dy = tensor(device, [1, 0, 0], [3, 1]);
 * const { gradBias } = batchNormBackward(residuals, dy, { device });
 * assert(gradBias !== null);
 * assert.deepEqual(await device.download(gradBias), Float32Array.of(1));
 * ```
 */
export function batchNormBackward<A>(
  residuals: LocalResiduals<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
  _options: BackwardOptions = {},
): Backward<A> {
  checkResiduals(residuals, "local");
  return localBackward(residuals, gradOutput, effects.device);
}

/**
 * Computes the gradients of {@linkcode syncBatchNormForward} for this rank's part of the batch.
 *
 * The formulas are those of {@linkcode batchNormBackward}, with sumDy, sumDyXmu and N over all ranks in gradInput.
 * gradWeight and gradBias stay this rank's own: data parallelism sums them with all other gradients. One readback, one
 * collective, one upload, of [sumDy C, sumDyXmu C] in float64; every rank of forward must call it.
 *
 * @param residuals what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output on this rank, in its shape and dtype, any format
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @param options a signal to give up
 * @returns frozen gradients
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed (`cause`: for a wrong shape the
 * TypeError of {@linkcode batchNormBackward}), did something else, or did not arrive
 *
 * @example A training step of one replica
 * ```ts
 * import {
 *   initBatchNorm,
 *   referenceDevice,
 *   runRanks,
 *   syncBatchNormBackward,
 *   syncBatchNormForward,
 *   tensor,
 * } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const x = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const dy = tensor(device, [1, 0, 0, 1], [2, 2]);
 *   const { residuals } = await syncBatchNormForward(state, x, { device, group });
 *   const { gradInput } = await syncBatchNormBackward(residuals, dy, { device, group });
 *   console.assert(gradInput.shape.length === 2);
 * });
 * ```
 */
export async function syncBatchNormBackward<A>(
  residuals: GroupResiduals<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardOptions = {},
): Promise<Backward<A>> {
  const { device, group } = effects;
  if (group.worldSize === 1) {
    checkGroupResiduals(residuals, 1);
    return localBackward(residuals, gradOutput, device);
  }
  return await region(device, async (scope) => {
    let prepared: { readonly gated: Gated<A>; readonly local: A } | undefined;
    const readLocal = async () => {
      checkGroupResiduals(residuals, group.worldSize);
      checkAlike(device, gradOutput, residuals.input, ACTION, "gradOutput");
      const { wire, ...rest } = batch(scope, (d) => {
        const { gated, local } = prepare(d, residuals, gradOutput);
        return { gated, local, wire: d.sumsToWire(local) };
      });
      prepared = rest;
      return await wire;
    };
    const sending = readLocal();
    sending.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
    // No await before this line: ranks match collectives by program order.
    const total = await group.allReduce(sending, sum, {
      label: `syncBatchNormBackward C=${residuals?.input?.shape?.[1]} ${residuals?.input?.dtype}`,
      signal: options.signal,
    });
    checkWire(total, 2 * residuals.input.shape[1], ACTION);
    const { gated, local } = prepared!;
    return batch(
      scope,
      (d) => finish(d, residuals, gated, { local, total: d.sumsFromWire(total) }),
    );
  });
}

function localBackward<A>(
  residuals: Residuals<A>,
  gradOutput: Tensor<A>,
  device: Device<A>,
): Backward<A> {
  checkAlike(device, gradOutput, residuals.input, ACTION, "gradOutput");
  return region(device, (scope) =>
    batch(scope, (d) => {
      const { gated, local } = prepare(d, residuals, gradOutput);
      return finish(d, residuals, gated, { local, total: local });
    }));
}

function prepare<A>(
  device: Device<A>,
  residuals: Residuals<A>,
  gradOutput: Tensor<A>,
): { readonly gated: Gated<A>; readonly local: A } {
  const { input, output, residualFormat } = residuals;
  const gated = ungate(device, gradOutput, output, residualFormat);
  return { gated, local: gradientSums(device, input, statisticsOf(residuals), gated) };
}

function finish<A>(
  device: Device<A>,
  residuals: Residuals<A>,
  gated: Gated<A>,
  sums: GradientSums<A>,
): Backward<A> {
  const { input } = residuals;
  const arrays = gradients(device, input, statisticsOf(residuals), residuals, gated, sums);
  return backwardOf(input, arrays, gated.gradResidual);
}

function statisticsOf<A>({ moments }: Residuals<A>): Statistics<A> {
  return { source: "batch", moments };
}

/**
 * Gives bare gradients their meaning.
 *
 * @param input the input of forward
 * @param arrays gradients of input, weight and bias
 * @param gradResidual gradient of the residual, or null without one
 * @returns a frozen record
 */
export function backwardOf<A>(
  input: Tensor<A>,
  arrays: GradientArrays<A>,
  gradResidual: Tensor<A> | null,
): Backward<A> {
  return Object.freeze({
    ...arrays,
    gradInput: tensorLike(input, arrays.gradInput),
    ...(gradResidual !== null && { gradResidual }),
  });
}

function checkResiduals(residuals: { readonly kind: string }, kind: "local" | "group"): void {
  if (residuals?.kind === kind) return;
  const [here, there] = kind === "local"
    ? ["batchNormBackward", "batchNormForward"]
    : ["syncBatchNormBackward", "syncBatchNormForward"];
  throw new TypeError(
    `Cannot ${ACTION} as ${here} takes the residuals of ${there}: ` +
      `current kind is ${JSON.stringify(residuals?.kind)}`,
  );
}

function checkGroupResiduals<A>(residuals: GroupResiduals<A>, worldSize: number): void {
  checkResiduals(residuals, "group");
  if (residuals.worldSize === worldSize) return;
  throw new RangeError(
    `Cannot ${ACTION} as the group must be that of forward: ` +
      `current numbers of ranks are ${worldSize} and, in forward, ${residuals.worldSize}`,
  );
}

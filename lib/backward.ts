/**
 * Training backward: gradients of a batch that was normalized with its own statistics, or with those of the group.
 *
 * @module
 */

import {
  checkAlike,
  checkDevice,
  checkGivenUp,
  checkGroup,
  checkSums,
  checkVector,
  isDonated,
} from "./checks.ts";
import type { CollectiveOptions, ReduceGroup } from "./collectives.ts";
import type { Device, GradientSums, Statistics } from "./device.ts";
import {
  type Backward,
  type Gated,
  gradients,
  gradientSums,
  tensorLike,
  ungate,
} from "./epilogue.ts";
import { exchange } from "./exchange.ts";
import type { GroupResiduals, LocalResiduals, Residuals } from "./forward.ts";
import { sum } from "./moments.ts";
import { batch, launchAll, region } from "./ownership.ts";
import { checkTensor, describe, type Tensor } from "./tensor.ts";

/** Options of a backward pass. */
export interface BackwardOptions {
  /**
   * Gives gradOutput up: gradInput may be written over it, which saves a pass over memory, and its array is freed when
   * the call succeeds, on every device. A call that throws leaves it the caller's. False by default.
   */
  readonly donate?: boolean;
}

/** Options of a synchronised backward pass. */
export interface SyncBackwardOptions extends BackwardOptions, Pick<CollectiveOptions, "signal"> {}

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
 * @param options whether gradOutput is given up
 * @returns frozen gradients
 * @throws TypeError where residuals or gradOutput do not fit, the arrays borrowed by the residuals were freed, or one of
 * them is to be given up as gradOutput
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
  options: BackwardOptions = {},
): Backward<A> {
  const { device } = checkDevice(effects, ACTION);
  checkResiduals(residuals, "local", device, gradOutput);
  const donate = checkDonate(residuals, gradOutput, options?.donate);
  return localBackward(residuals, gradOutput, device, donate);
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
 * @param options whether gradOutput is given up, a signal to give up waiting for other ranks
 * @returns frozen gradients
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: for
 * a wrong shape the TypeError of {@linkcode batchNormBackward}), did something else, or did not arrive. What fails after
 * it, such as a lost device, is this rank's own error; the others learn of it at their next collective
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
  checkDevice(effects, ACTION);
  const { shape, dtype } = residuals?.input ?? {};
  const label = `syncBatchNormBackward C=${shape?.[1]} ${dtype}`;
  return await backwardOverGroup(residuals, gradOutput, effects, options, label);
}

/**
 * Does the work of {@linkcode syncBatchNormBackward}.
 *
 * @param residuals what forward returned on this rank
 * @param gradOutput gradient of forward's output on this rank
 * @param effects device and group
 * @param options those of the call
 * @param label what the caller does, for the other ranks
 * @returns frozen gradients
 */
export async function backwardOverGroup<A>(
  residuals: GroupResiduals<A>,
  gradOutput: Tensor<A>,
  { device, group }: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardOptions,
  label: string,
): Promise<Backward<A>> {
  const { worldSize } = checkGroup(group, options, ACTION);
  if (worldSize === 1) {
    checkResiduals(residuals, "group", device, gradOutput, 1);
    const donate = checkDonate(residuals, gradOutput, options?.donate);
    return localBackward(residuals, gradOutput, device, donate);
  }
  const launch = (scope: Device<A>) => {
    checkResiduals(residuals, "group", device, gradOutput, worldSize);
    // Snapshots: nobody may change what was checked while the collective is under way.
    const { input, output } = residuals;
    const saved = {
      ...residuals,
      input: tensorLike(input, input.data),
      output: output && tensorLike(output, output.data),
    };
    const dy = tensorLike(gradOutput, gradOutput.data);
    const donated = checkDonate(saved, dy, options?.donate) ? dy.data : null;
    return batch(scope, (d) => {
      const prepared = prepare(d, saved, dy, donated !== null);
      return { saved, donated, ...prepared, wire: d.sumsToWire(prepared.local) };
    });
  };
  return await region(device, async (scope) => {
    const { total, launched } = await exchange(group, () => launch(scope), sum, {
      label,
      signal: options?.signal,
    });
    const { saved, donated, gated, local } = launched;
    checkSums(total, saved.input.shape[1], ACTION);
    const result = batch(
      scope,
      (d) => finish(d, saved, gated, { local, total: d.sumsFromWire(total) }),
    );
    // At once: another call that has waited with this one must not read what may be overwritten.
    if (donated !== null) device.free(donated);
    return result;
  });
}

function localBackward<A>(
  residuals: Residuals<A>,
  gradOutput: Tensor<A>,
  device: Device<A>,
  donate: boolean,
): Backward<A> {
  const result = launchAll(device, (d) => {
    const { gated, local } = prepare(d, residuals, gradOutput, donate);
    return finish(d, residuals, gated, { local, total: local });
  });
  if (donate) device.free(gradOutput.data);
  return result;
}

function prepare<A>(
  device: Device<A>,
  residuals: Residuals<A>,
  gradOutput: Tensor<A>,
  overwrite: boolean,
): { readonly gated: Gated<A>; readonly local: A } {
  const { input, output, residualFormat } = residuals;
  const gated = ungate(device, gradOutput, { output, residualFormat, overwrite });
  return { gated, local: gradientSums(device, input, statisticsOf(residuals), gated) };
}

function finish<A>(
  device: Device<A>,
  residuals: Residuals<A>,
  gated: Gated<A>,
  sums: GradientSums<A>,
): Backward<A> {
  return gradients(device, residuals.input, statisticsOf(residuals), residuals, gated, sums);
}

function statisticsOf<A>({ moments }: Residuals<A>): Statistics<A> {
  return { source: "batch", moments };
}

/** Checks everything that backward borrows: it may have been freed since forward. */
function checkResiduals<A>(
  residuals: Residuals<A> & { readonly kind: string; readonly worldSize?: number },
  kind: "local" | "group",
  device: Device<A>,
  gradOutput: Tensor<A>,
  worldSize?: number,
): void {
  if (residuals?.kind !== kind) {
    const [here, there] = kind === "local"
      ? ["batchNormBackward", "batchNormForward"]
      : ["syncBatchNormBackward", "syncBatchNormForward"];
    throw new TypeError(
      `Cannot ${ACTION} as ${here} takes the residuals of ${there}: ` +
        `current kind is ${JSON.stringify(residuals?.kind)}`,
    );
  }
  if (residuals.worldSize !== worldSize) {
    throw new RangeError(
      `Cannot ${ACTION} as the group must be that of forward: ` +
        `current numbers of ranks are ${worldSize} and, in forward, ${residuals.worldSize}`,
    );
  }
  const { input, output, moments, weight, bias } = residuals;
  checkTensor(device, input, ACTION, "residuals' input");
  if (output !== null) checkAlike(device, output, input, ACTION, "residuals' output");
  if (weight !== null) {
    checkVector(device, weight, input.shape[1], ACTION, "the residuals' weight");
  }
  if (bias !== null) {
    checkVector(device, bias, input.shape[1], ACTION, "the residuals' bias");
  }
  describe(device, moments, ACTION, "the residuals' moments");
  checkAlike(device, gradOutput, input, ACTION, "gradOutput");
}

/** Whether gradOutput is given up, which nothing may be that the residuals borrow. */
function checkDonate<A>(
  { input, output, moments, weight, bias }: Residuals<A>,
  gradOutput: Tensor<A>,
  option: unknown,
): boolean {
  const donate = isDonated(option, ACTION);
  if (donate) {
    checkGivenUp(gradOutput, { input, output, moments, weight, bias }, ACTION, "gradOutput");
  }
  return donate;
}

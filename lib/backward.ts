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
  scratchOf,
  tensorLike,
  ungate,
} from "./epilogue.ts";
import { apart, exchangeAll, partsOf, sideBySide } from "./exchange.ts";
import type { GroupResiduals, LocalResiduals, Residuals } from "./forward.ts";
import { sum } from "./moments.ts";
import { batch, region } from "./ownership.ts";
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
  const call = { residuals, gradOutput, donate: options?.donate, action: ACTION };
  checkResiduals(call, "local", device);
  checkDonated([call]);
  return localBackward([call], device)[0];
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
  const call = { residuals, gradOutput, donate: options?.donate, action: ACTION };
  const [backward] = await backwardOverGroup([call], effects, { label, signal: options?.signal });
  return backward;
}

/** One batch norm of a backward pass. */
export interface BackwardCall<A, R extends Residuals<A> = GroupResiduals<A>> {
  /** What forward returned on this rank. */
  readonly residuals: R;
  /** Gradient of forward's output on this rank. */
  readonly gradOutput: Tensor<A>;
  /** Whether it is given up. */
  readonly donate: boolean | undefined;
  /** What is about to be done, for messages. */
  readonly action: string;
}

/**
 * Does the work of {@linkcode syncBatchNormBackward} for batch norms that are ready together: one readback, one collective.
 *
 * @param calls the batch norms
 * @param effects device and group
 * @param options a signal to give up, and what the caller does, for the other ranks
 * @returns gradients of each, frozen
 */
export async function backwardOverGroup<A>(
  calls: readonly BackwardCall<A>[],
  { device, group }: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: CollectiveOptions,
): Promise<readonly Backward<A>[]> {
  const { worldSize } = checkGroup(group, options, ACTION);
  if (worldSize === 1) {
    for (const call of calls) checkResiduals(call, "group", device, 1);
    checkDonated(calls);
    return localBackward(calls, device);
  }
  const parts = partsOf(device, calls);
  const launch = (scope: Device<A>) => {
    for (const call of calls) checkResiduals(call, "group", device, worldSize);
    const saved = calls.map(snapshot);
    checkDonated(saved);
    const { overlapped } = scope;
    if (overlapped && parts > 1) {
      const [call] = saved;
      const { residuals: { input }, residuals } = call;
      const gated = gate(scope, call);
      const { gradOutput, prologue } = gated;
      const { array: local, wires } = overlapped.gradientSums(
        input,
        gradOutput,
        statisticsOf(residuals),
        prologue,
      );
      return { prepared: [{ ...call, gated, local }], wires };
    }
    return batch(scope, (d) => {
      const prepared = saved.map((call) => ({ ...call, ...prepare(d, call) }));
      return { prepared, wires: [sideBySide(prepared.map(({ local }) => d.sumsToWire(local)))] };
    });
  };
  return await region(device, async (scope) => {
    const { total, launched } = await exchangeAll(
      group,
      () => launch(scope),
      { parts, combine: sum, head: 0, action: ACTION },
      options,
    );
    const { prepared } = launched;
    const lengths = prepared.map(({ residuals: { input } }) => 2 * input.shape[1]);
    const wires = apart(total, lengths, ACTION);
    const results = batch(
      scope,
      (d) =>
        prepared.map(({ residuals, gated, local }, i) =>
          finish(d, residuals, gated, { local, total: d.sumsFromWire(wires[i]) })
        ),
    );
    // At once: another call that has waited with this one must not read what may be overwritten.
    device.free(...donatedOf(prepared));
    return results;
  });
}

/** Nobody may change what was checked while the collective is under way. */
function snapshot<A>(call: BackwardCall<A>): BackwardCall<A> {
  const { residuals, gradOutput } = call;
  const { input, output } = residuals;
  return {
    ...call,
    residuals: {
      ...residuals,
      input: tensorLike(input, input.data),
      output: output && tensorLike(output, output.data),
    },
    gradOutput: tensorLike(gradOutput, gradOutput.data),
  };
}

/** A backward pass whose sums are this rank's own. */
function localBackward<A>(
  calls: readonly BackwardCall<A, Residuals<A>>[],
  device: Device<A>,
): readonly Backward<A>[] {
  const scratch = donatedOf(calls);
  const results = batch(device, (d) =>
    calls.map((call) => {
      const { gated, local } = prepare(d, call);
      scratch.push(local, ...scratchOf(gated, call.gradOutput));
      return finish(d, call.residuals, gated, { local, total: local });
    }));
  device.free(...scratch);
  return results;
}

function prepare<A>(
  device: Device<A>,
  call: BackwardCall<A, Residuals<A>>,
): { readonly gated: Gated<A>; readonly local: A } {
  const gated = gate(device, call);
  const { residuals } = call;
  return { gated, local: gradientSums(device, residuals.input, statisticsOf(residuals), gated) };
}

function gate<A>(
  device: Device<A>,
  { residuals: { output, residualFormat }, gradOutput, donate }: BackwardCall<A, Residuals<A>>,
): Gated<A> {
  return ungate(device, gradOutput, { output, residualFormat, overwrite: donate === true });
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
  { residuals, gradOutput, action }: BackwardCall<
    A,
    Residuals<A> & { readonly kind: string; readonly worldSize?: number }
  >,
  kind: "local" | "group",
  device: Device<A>,
  worldSize?: number,
): void {
  if (residuals?.kind !== kind) {
    const [here, there] = kind === "local"
      ? ["batchNormBackward", "batchNormForward"]
      : ["syncBatchNormBackward", "syncBatchNormForward"];
    throw new TypeError(
      `Cannot ${action} as ${here} takes the residuals of ${there}: ` +
        `current kind is ${JSON.stringify(residuals?.kind)}`,
    );
  }
  if (residuals.worldSize !== worldSize) {
    throw new RangeError(
      `Cannot ${action} as the group must be that of forward: ` +
        `current numbers of ranks are ${worldSize} and, in forward, ${residuals.worldSize}`,
    );
  }
  const { input, output, moments, weight, bias } = residuals;
  checkTensor(device, input, action, "residuals' input");
  if (output !== null) checkAlike(device, output, input, action, "residuals' output");
  if (weight !== null) {
    checkVector(device, weight, input.shape[1], action, "the residuals' weight");
  }
  if (bias !== null) {
    checkVector(device, bias, input.shape[1], action, "the residuals' bias");
  }
  describe(device, moments, action, "the residuals' moments");
  checkAlike(device, gradOutput, input, action, "gradOutput");
}

/** Checks that a gradOutput that is given up is nothing that any of the calls borrows. */
function checkDonated<A>(calls: readonly BackwardCall<A, Residuals<A>>[]): void {
  for (const call of calls) {
    const { gradOutput: given, donate, action } = call;
    if (!isDonated(donate, action)) continue;
    for (const other of calls) {
      const { input, output, moments, weight, bias } = other.residuals;
      const gradOutput = other === call ? null : other.gradOutput;
      const borrowed = { input, output, moments, weight, bias, gradOutput };
      checkGivenUp(given, borrowed, action, "gradOutput");
    }
  }
}

function donatedOf<A>(calls: readonly BackwardCall<A, Residuals<A>>[]): A[] {
  return calls.filter(({ donate }) => donate === true).map(({ gradOutput }) => gradOutput.data);
}

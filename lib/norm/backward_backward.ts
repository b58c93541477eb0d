/**
 * Gradients of gradients: the way back through a backward pass of training, as gradient penalties and Hessian-vector products
 * need it. A ReLU's gate is taken for constant. Third order is left out.
 */

import { checkDevice, checkOptions } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { describe, fixed, type Tensor } from "../tensor.ts";
import { sumsWire } from "../wire.ts";
import { refused } from "../words.ts";
import type { KeptSums } from "./backward.ts";
import { checkAlike } from "./check_call.ts";
import { checkForwards } from "./check_saved.ts";
import { checkDirections, passOf } from "./directions.ts";
import type { GroupSaved, LocalSaved } from "./normalize.ts";
import {
  type BackwardBackward,
  launchSecond,
  secondAlone,
  type SecondCall,
} from "./second_sums.ts";
import { keptSecondWire, secondWire } from "./second_wire.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";

/** Gradients of a loss by what a backward pass returned. */
export interface BackwardCotangents<A> {
  /** Gradient by gradInput, in its shape and dtype, any format. */
  readonly gradInput: Tensor<A>;
  /** Gradient by gradWeight, shape (C), float32; left out where the loss does not depend on it. */
  readonly gradWeight?: A | null;
  /** Gradient by gradBias, shape (C), float32; left out where the loss does not depend on it. */
  readonly gradBias?: A | null;
  /** Gradient by gradResidual, in its shape and dtype, any format; left out where the loss does not depend on it. */
  readonly gradResidual?: Tensor<A>;
}

/** Options of gradients of gradients. */
export interface BackwardBackwardOptions<A> {
  /**
   * The `sums` that backward has kept, of the same gradOutput, on all ranks or none; borrowed. They save a pass over the input and
   * gradOutput, and over a group 2C of the 7C sums.
   */
  readonly sums?: KeptSums<A>;
}

/** Options of gradients of gradients over a group. */
export interface SyncBackwardBackwardOptions<A>
  extends BackwardBackwardOptions<A>, Pick<CollectiveOptions, "signal"> {}

const ACTION = "compute the gradients of the gradients";
/** Names of directions, which are those of a backward pass's results. */
export const COTANGENTS = {
  input: "gradInput",
  weight: "gradWeight",
  bias: "gradBias",
  residual: "gradResidual",
};

/**
 * Computes the gradients of {@linkcode batchNormBackward}: of a loss that depends on what it returned, by the input, gradOutput
 * and the weight.
 *
 * The formulas, by weights of examples too, stand in docs/numerics.md. What the loss owes to the input by other ways is the
 * caller's to add. Synchronous: nothing is read back.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutput what backward was given
 * @param cotangents gradients of the loss by backward's results
 * @param effects `device`: where everything lives
 * @param options sums that backward has kept
 * @returns frozen gradients
 * @throws TypeError where arguments do not fit, or a gradient is by what backward did not return; DeviceError
 * "unsupported" where the device lacks the pass
 *
 * @example The gradient of |gradInput|^2 / 2
 * ```ts
 * import { batchNormBackward, batchNormBackwardBackward, batchNormForward, initBatchNorm } from "@syncbn/syncbn";
 * import { referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { saved } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const dy = tensor(device, [1, 0, 0], [3, 1]);
 * const { gradInput } = batchNormBackward(saved, dy, { device });
 * const penalty = batchNormBackwardBackward(saved, dy, { gradInput }, { device });
 * console.assert(penalty.gradGradOutput.shape[0] === 3);
 * ```
 */
export function batchNormBackwardBackward<A>(
  saved: LocalSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A> },
  options: BackwardBackwardOptions<A> = {},
): BackwardBackward<A> {
  const { device } = checkDevice(effects, ACTION);
  return secondAlone(device, checked(device, "local", saved, gradOutput, cotangents, options));
}

/**
 * Computes the gradients of {@linkcode syncBatchNormBackward} on this rank, of a loss that is the sum of all ranks' own.
 *
 * The formulas are those of {@linkcode batchNormBackwardBackward}, with sums over all ranks. One readback, one collective, one
 * upload, of 5C sums in float64 where backward has kept its own, else of 7C, those among them; every rank of forward must call it.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput what backward was given on this rank
 * @param cotangents gradients of the loss by backward's results on this rank; those of gradWeight and gradBias may differ
 * among ranks, as these do
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns frozen gradients; that of the weight is this rank's own: data parallelism sums it with all others
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: that of
 * {@linkcode batchNormBackwardBackward}), did something else, or did not arrive
 *
 * @example A gradient penalty over four replicas
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormBackward, syncBatchNormBackwardBackward, syncBatchNormForward } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const effects = { device, group };
 *   const x = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const { output, saved } = await syncBatchNormForward(state, x, effects);
 *   const { gradInput } = await syncBatchNormBackward(saved, output, effects);
 *   const second = await syncBatchNormBackwardBackward(saved, output, { gradInput }, effects);
 *   console.assert(device.describe(second.gradWeight!).length === 2);
 * });
 * ```
 */
export async function syncBatchNormBackwardBackward<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardBackwardOptions<A> = {},
): Promise<BackwardBackward<A>> {
  return await overGroup(effects, options, across(saved, gradOutput, cotangents, options));
}

/**
 * {@linkcode syncBatchNormBackwardBackward} on a thread that may be held up: a worker, a process of MPI. The same collective,
 * the same bits; the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormBackwardBackwardBlocking<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: BackwardBackwardOptions<A> = {},
): BackwardBackward<A> {
  return overBlockingGroup(effects, across(saved, gradOutput, cotangents, options));
}

function across<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  options: BackwardBackwardOptions<A>,
): Crossing<A, BackwardBackward<A>> {
  const [channels, dtype] = [saved?.input?.shape?.[1], saved?.input?.dtype];
  const kept = options?.sums !== undefined;
  const check = (device: Device<A>, worldSize: number) =>
    checked(device, "group", saved, gradOutput, cotangents, options, worldSize);
  return {
    action: ACTION,
    // Sums that some ranks alone have kept are another call.
    label: `syncBatchNormBackwardBackward C=${channels} ${dtype}${kept ? " sums" : ""}`,
    format: kept ? keptSecondWire : secondWire,
    channels: [channels],
    alone: (device) => secondAlone(device, check(device, 1)),
    launch: (scope, worldSize, read) => {
      const { wire, conclude: end } = launchSecond(scope, check(scope, worldSize), read);
      const conclude = ([total]: readonly Float64Array[]) => end(total);
      return { wires: [wire], conclude };
    },
  };
}

function checked<A>(
  device: Device<A>,
  kind: "local" | "group",
  saved: (LocalSaved<A> | GroupSaved<A>) & { readonly worldSize?: number },
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  options: BackwardBackwardOptions<A>,
  worldSize?: number,
): SecondCall<A> {
  checkOptions(options, ["signal", "sums"], ACTION);
  checkForwards(saved, kind, device, ACTION, worldSize, "BackwardBackward");
  checkAlike(device, gradOutput, saved.input, ACTION, "gradOutput");
  const had = { ...saved, residual: saved.residualFormat !== null };
  const directions = checkDirections(
    ...[device, cotangents, COTANGENTS, had, ACTION, "secondOrder"] as const,
  );
  const kept = keptOf(device, options.sums, saved.input.shape[1]);
  return {
    ...passOf(saved),
    gradOutput: fixed(gradOutput),
    directions,
    kept,
  };
}

/** Sums that a backward pass has kept, checked: they may have been freed since. */
function keptOf<A>(
  device: Device<A>,
  sums: KeptSums<A> | undefined,
  channels: number,
): KeptSums<A> | undefined {
  if (sums === undefined) return undefined;
  const wanted = sumsWire.length(channels);
  const { local, total } = sums ?? {};
  for (const [array, name] of [[local, "local"], [total, "total"]] as const) {
    const { length } = describe(device, array, ACTION, `the ${name} sums`);
    if (length === wanted) continue;
    throw refused(ACTION, `the ${name} sums must hold ${wanted} numbers`, `array holds ${length}`);
  }
  return { local, total };
}

/**
 * Directional derivatives of training (forward mode, Jacobian-vector products): how the output moves where input, weight, bias
 * and residual do. A ReLU's gate is taken for constant.
 *
 * No kernel reduces for it: the sums over the input's direction are those that a gradient would have.
 */

import { checkDevice, checkOptions } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { compose } from "../ownership.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { formatOn, sumsWire } from "../wire.ts";
import { checkForwards } from "./check_saved.ts";
import { type Along, checkDirections, passOf, sumsAlong } from "./directions.ts";
import type { GroupSaved, LocalSaved, Saved } from "./normalize.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";

/** Directions of what forward takes. */
export interface Tangents<A> {
  /** Direction of the input, in its shape and dtype, any format. */
  readonly input: Tensor<A>;
  /** Direction of the weight, shape (C), float32; left out where it stays as it is. */
  readonly weight?: A | null;
  /** Direction of the bias, shape (C), float32; left out where it stays as it is. */
  readonly bias?: A | null;
  /** Direction of the residual, in the input's shape and dtype, any format; left out where it stays as it is. */
  readonly residual?: Tensor<A>;
}

const ACTION = "follow the directions";
/** Names of directions, which are those of forward's arguments. */
export const TANGENTS = { input: "input", weight: "weight", bias: "bias", residual: "residual" };

/**
 * Computes the directional derivative of {@linkcode batchNormForward}'s output: its Jacobian times a vector.
 *
 * Per channel, with s = 1/sqrt(variance + eps), N values, t the input's direction: weight*s * (t - sumT/N - (x - mean) *
 * s^2 * sumTXmu/N) + dweight * xhat + dbias + dresidual, and 0 where a ReLU's output is. Where examples had weights w, both sums
 * are of w*t, and N is the sum of w. Synchronous: nothing is read back.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param tangents directions of forward's arguments, on the device
 * @param effects `device`: where everything lives
 * @returns the direction of the output, in the input's shape, dtype and format
 * @throws TypeError where saved or tangents do not fit, or a direction is that of what forward did not have; DeviceError
 * "unsupported" where the device lacks the pass
 *
 * @example The output of a batch that is scaled does not move
 * ```ts
 * import { batchNormForward, batchNormJvp, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { saved } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const along = await toArray(device, batchNormJvp(saved, { input: x }, { device }));
 * console.assert(along.every((value) => Math.abs(value) < 1e-5));
 * ```
 */
export function batchNormJvp<A>(
  saved: LocalSaved<A>,
  tangents: Tangents<A>,
  effects: { readonly device: Device<A> },
): Tensor<A> {
  const { device } = checkDevice(effects, ACTION);
  return alone(device, saved, checked(device, "local", saved, tangents, {}));
}

/**
 * Computes the directional derivative of {@linkcode syncBatchNormForward}'s output on this rank, where the inputs of all ranks
 * move.
 *
 * The formula is that of {@linkcode batchNormJvp}, with sumT, sumTXmu and N over all ranks. One readback, one collective, one
 * upload, of [sumT C, sumTXmu C] in float64; every rank of forward must call it.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param tangents directions of forward's arguments on this rank; those of weight and bias are the same on all ranks
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns the direction of the output, in the input's shape, dtype and format
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: that of
 * {@linkcode batchNormJvp}), did something else, or did not arrive
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormForward, syncBatchNormJvp } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const input = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const { saved } = await syncBatchNormForward(state, input, { device, group });
 *   const along = await syncBatchNormJvp(saved, { input, bias: state.bias }, { device, group });
 *   console.assert(along.shape.length === 2);
 * });
 * ```
 */
export async function syncBatchNormJvp<A>(
  saved: GroupSaved<A>,
  tangents: Tangents<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<Tensor<A>> {
  return await overGroup(effects, options, across(saved, tangents, options));
}

/**
 * {@linkcode syncBatchNormJvp} on a thread that may be held up: a worker, a process of MPI. The same collective, the same bits;
 * the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormJvpBlocking<A>(
  saved: GroupSaved<A>,
  tangents: Tangents<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
): Tensor<A> {
  return overBlockingGroup(effects, across(saved, tangents, {}));
}

function across<A>(
  saved: GroupSaved<A>,
  tangents: Tangents<A>,
  options: object,
): Crossing<A, Tensor<A>> {
  const input = saved?.input;
  return {
    action: ACTION,
    label: `syncBatchNormJvp C=${input?.shape?.[1]} ${input?.dtype}`,
    format: sumsWire,
    channels: [input?.shape?.[1]],
    alone: (device) => alone(device, saved, checked(device, "group", saved, tangents, options, 1)),
    launch: (scope, worldSize, read) => {
      const directions = checked(scope, "group", saved, tangents, options, worldSize);
      const { counted, ...pass } = passOf(saved);
      const wires = compose(
        scope,
        (d) => [read(d, sumsAlong(d, { ...pass, directions, counted }))],
      );
      const conclude = ([sums]: readonly Float64Array[]) =>
        compose(scope, (d) => {
          const total = d.fromWire(formatOn(d, sumsWire), sums);
          return tensorLike(pass.input, d.tangents!({ ...pass, directions, total }));
        });
      return { wires, conclude };
    },
  };
}

function checked<A>(
  device: Device<A>,
  kind: "local" | "group",
  saved: (LocalSaved<A> | GroupSaved<A>) & { readonly worldSize?: number },
  tangents: Tangents<A>,
  options: object,
  worldSize?: number,
): Along<A> {
  checkOptions(options, ["signal"], ACTION);
  checkForwards(saved, kind, device, ACTION, worldSize, "Jvp");
  const residual = saved.residualFormat !== null;
  return checkDirections(device, tangents, TANGENTS, { ...saved, residual }, ACTION, "tangents");
}

function alone<A>(device: Device<A>, saved: Saved<A>, directions: Along<A>): Tensor<A> {
  const { counted, ...pass } = passOf(saved);
  const scratch: A[] = [];
  const result = compose(device, (d) => {
    const total = sumsAlong(d, { ...pass, directions, counted });
    scratch.push(total);
    return tensorLike(pass.input, d.tangents!({ ...pass, directions, total }));
  });
  device.free(...scratch);
  return result;
}

/** Gradients of batch renormalization: those of the normalization that it is, and of weight and bias behind r and d. */

import { checkDevice, checkOptions } from "../check_effects.ts";
import { checkOneOf } from "../check_value.ts";
import type { BlockingGroup, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { region } from "../ownership.ts";
import type { Tensor } from "../tensor.ts";
import { wrongKind } from "../words.ts";
import {
  type Backward,
  type BackwardOptions,
  batchNormBackward,
  type SyncBackwardOptions,
  syncBatchNormBackward,
  syncBatchNormBackwardBlocking,
} from "./backward.ts";
import { checkVector } from "./check_call.ts";
import { modulate } from "./modulate.ts";
import type { GroupSaved, LocalSaved } from "./normalize.ts";
import { type RenormSaved, rowOf } from "./renorm.ts";

const ACTION = "compute the gradients of the renormalization";

/**
 * Computes the gradients of `batchRenormForward`, to which r and d are constants.
 *
 * gradInput is that of a batch norm with weight * r; gradWeight = sum dy * (xhat * r + d), gradBias = sum dy. Synchronous.
 *
 * @param saved what forward resolved to; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws what `batchNormBackward` throws
 *
 * @example
 * ```ts
 * import { batchRenormBackward, batchRenormForward, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const options = { rmax: 3, dmax: 5 };
 * const { saved } = await batchRenormForward(initBatchNorm(device, 1), x, { device }, options);
 * const { gradBias } = batchRenormBackward(saved, x, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(9));
 * ```
 */
export function batchRenormBackward<A>(
  saved: RenormSaved<A, LocalSaved<A>>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: BackwardOptions = {},
): Backward<A> {
  const { device } = checkDevice(effects, ACTION);
  checkRenorm(device, saved);
  return region(
    device,
    (scope) =>
      behind(
        scope,
        saved,
        batchNormBackward(saved.normalization, gradOutput, { device: scope }, options),
      ),
  );
}

/**
 * {@linkcode batchRenormBackward} with the sums of all ranks: one collective. Gradients of weight and bias are this rank's.
 *
 * @throws (rejects with) what `syncBatchNormBackward` rejects with
 */
export async function syncBatchRenormBackward<A>(
  saved: RenormSaved<A, GroupSaved<A>>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncBackwardOptions = {},
): Promise<Backward<A>> {
  const normalization = saved?.normalization;
  const plain = await syncBatchNormBackward(normalization, gradOutput, effects, options);
  return renormalized(effects.device, saved, plain);
}

/** {@linkcode syncBatchRenormBackward} on a thread that may be held up. */
export function syncBatchRenormBackwardBlocking<A>(
  saved: RenormSaved<A, GroupSaved<A>>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: BackwardOptions = {},
): Backward<A> {
  const normalization = saved?.normalization;
  const plain = syncBatchNormBackwardBlocking(normalization, gradOutput, effects, options);
  return renormalized(effects.device, saved, plain);
}

/** Gradients of a renormalization, of those of its normalization, which are given up. */
export function renormalized<A>(
  device: Device<A>,
  saved: RenormSaved<A, GroupSaved<A>>,
  plain: Backward<A>,
): Backward<A> {
  checkRenorm(device, saved);
  const result = region(device, (scope) => behind(scope, saved, plain));
  device.free(plain.gradWeight!, ...(result.gradBias === null ? [plain.gradBias!] : []));
  return result;
}

/** The gradients of weight and bias, of those of weight * r and weight * d + bias. */
function behind<A>(
  device: Device<A>,
  { r, d, learns }: Pick<RenormSaved<A, never>, "r" | "d" | "learns">,
  { gradWeight, gradBias, ...rest }: Backward<A>,
): Backward<A> {
  const row = (data: A) => rowOf(device, data);
  const weightOf = () => {
    const effects = { device };
    const offset = modulate(row(gradWeight!), { scale: row(r) }, effects).output;
    return modulate(row(gradBias!), { scale: row(d), offset }, effects).output.data;
  };
  return Object.freeze({
    ...rest,
    gradWeight: learns.weight ? weightOf() : null,
    gradBias: learns.bias ? gradBias : null,
  });
}

function checkRenorm<A>(device: Device<A>, saved: RenormSaved<A, LocalSaved<A> | GroupSaved<A>>) {
  if (saved?.kind !== "renorm") {
    const kind = (saved as { readonly kind?: unknown } | undefined)?.kind;
    throw wrongKind(ACTION, "saved must be that of batchRenormForward", kind, "kind");
  }
  checkOptions(saved.learns, ["weight", "bias"], ACTION);
  for (const name of ["weight", "bias"] as const) {
    checkOneOf(saved.learns[name], [true, false], `learns.${name}`, ACTION);
  }
  const channels = saved.normalization?.input?.shape?.[1];
  checkVector(device, saved.r, channels, ACTION, "r");
  checkVector(device, saved.d, channels, ACTION, "d");
}

/** The way back through any layer. */

import { checkDevice } from "../check_effects.ts";
import type { Device } from "../device.ts";
import {
  type Backward,
  backwards,
  batchNormBackward,
  type SyncBackwardOptions,
} from "../norm/backward.ts";
import { batchNormInferBackward } from "../norm/infer.ts";
import { overGroup } from "../norm/steps.ts";
import { region } from "../ownership.ts";
import type { Tensor } from "../tensor.ts";
import { quote, wrongKind } from "../words.ts";
import type { FrozenSaved, LayerSaved } from "./apply.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";

/**
 * Computes the gradients of `applyLayer`, over the group of forward where there was one.
 *
 * The groups of forward and backward must be the same ranks under one name. What is noticed is another number of ranks, and
 * ranks that come with other names: groups are not stored, so others of as many ranks are not.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output on this rank, in its shape and dtype, any format
 * @param effects `device`; `groups` with the group of forward, where there was one
 * @returns frozen gradients; those of weight and bias are this rank's own, and null where the layer is frozen with both
 * @throws (rejects with) what `batchNormBackward`, `syncBatchNormBackward` or `batchNormInferBackward` throws, TypeError
 * for a name that `effects.groups` lacks
 *
 * @example
 * ```ts
 * import { applyLayer, backwardLayer, initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { saved } = await applyLayer(initLayer(device, "batchNorm1d", 1), x, { device });
 * const dy = tensor(device, [1, 0, 0], [3, 1]);
 * const { gradBias } = await backwardLayer(saved, dy, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(1));
 * ```
 */
export async function backwardLayer<A>(
  saved: LayerSaved<A>,
  gradOutput: Tensor<A>,
  effects: LayerEffects<A>,
  options: SyncBackwardOptions = {},
): Promise<Backward<A>> {
  const action = "compute the layer's gradients";
  const { device } = effects?.groups ? effects : checkDevice(effects, action);
  switch (saved?.kind) {
    case "local":
      return batchNormBackward(saved, gradOutput, { device }, options);
    case "group": {
      const { processGroup: name, input } = saved;
      // What syncBatchNormForward saved has no name to look a group up by.
      if (typeof name !== "string") break;
      const group = namedGroup(name, effects, action);
      const label = `backwardLayer ${quote(name)} C=${input?.shape?.[1]} ${input?.dtype}`;
      const call = { saved, gradOutput, options, action: "compute the gradients" };
      const crossing = backwards([call], label);
      const [backward] = await overGroup({ device, group }, options, crossing);
      return backward;
    }
    case "frozen":
      return frozenBackward(saved, gradOutput, device, options?.donate);
  }
  const { kind } = Object(saved) as { readonly kind?: unknown };
  throw wrongKind(action, "saved must be that of applyLayer", kind, "kind");
}

function frozenBackward<A>(
  { state, input, options, learnsAffine }: FrozenSaved<A>,
  gradOutput: Tensor<A>,
  device: Device<A>,
  donate: boolean | undefined,
): Backward<A> {
  return region(device, (scope) => {
    const effects = { device: scope };
    const all = batchNormInferBackward(state, input, gradOutput, effects, { ...options, donate });
    return learnsAffine ? all : Object.freeze({ ...all, gradWeight: null, gradBias: null });
  });
}

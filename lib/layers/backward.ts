/** The way back through any layer. */

import { checkDevice } from "../check_effects.ts";
import type { Device } from "../device.ts";
import {
  type Backward,
  backwards,
  batchNormBackward,
  type SyncBackwardOptions,
} from "../norm/backward.ts";
import { batchNormBackwardGhost } from "../norm/ghost_backward.ts";
import { batchNormInferBackward } from "../norm/infer.ts";
import type { GroupSaved } from "../norm/normalize.ts";
import { batchRenormBackward, renormalized } from "../norm/renorm_backward.ts";
import { overGroup } from "../norm/steps.ts";
import { region } from "../ownership.ts";
import type { Tensor } from "../tensor.ts";
import { quote, wrongKind } from "../words.ts";
import type { FrozenSaved, GroupRenormSaved, LayerSaved } from "./apply.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";

const ACTION = "compute the layer's gradients";

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
  const { device } = effects?.groups ? effects : checkDevice(effects, ACTION);
  switch (saved?.kind) {
    case "local":
      return batchNormBackward(saved, gradOutput, { device }, options);
    case "group":
      // What syncBatchNormForward saved has no name to look a group up by.
      if (typeof saved.processGroup !== "string") break;
      return await overNamed(saved, saved.processGroup, gradOutput, effects, options);
    case "ghost":
      return batchNormBackwardGhost(saved, gradOutput, { device }, options);
    case "renorm":
      if (inGroup(saved)) {
        const { normalization, processGroup } = saved;
        const plain = await overNamed(normalization, processGroup, gradOutput, effects, options);
        return renormalized(device, saved, plain);
      }
      if (saved.normalization?.kind !== "local") break;
      return batchRenormBackward(saved, gradOutput, { device }, options);
    case "frozen":
      return frozenBackward(saved, gradOutput, device, options?.donate);
  }
  const { kind } = Object(saved) as { readonly kind?: unknown };
  throw wrongKind(ACTION, "saved must be that of applyLayer", kind, "kind");
}

function inGroup<A>(
  saved: LayerSaved<A> & { readonly kind: "renorm" },
): saved is GroupRenormSaved<A> {
  return "processGroup" in saved && typeof saved.processGroup === "string";
}

/** The way back over the group of a name. */
async function overNamed<A>(
  saved: GroupSaved<A>,
  name: string,
  gradOutput: Tensor<A>,
  effects: LayerEffects<A>,
  options: SyncBackwardOptions,
): Promise<Backward<A>> {
  const { device } = effects;
  const group = namedGroup(name, effects, ACTION);
  const { shape, dtype } = saved?.input ?? {};
  const label = `backwardLayer ${quote(name)} C=${shape?.[1]} ${dtype}`;
  const call = { saved, gradOutput, options, action: "compute the gradients" };
  const [backward] = await overGroup({ device, group }, options, backwards([call], label));
  return backward;
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

/** A layer over one batch in parts, where a batch does not fit one tensor. */

import { checkDevice, checkGiven } from "../check_effects.ts";
import type { Device } from "../device.ts";
import type { GroupSaved, LocalSaved } from "../norm/normalize.ts";
import {
  batchNormForwardParts,
  type PartsForward,
  partsForward,
  type SyncPartsOptions,
} from "../norm/parts.ts";
import {
  batchNormBackwardParts,
  type PartsBackward,
  partsBackward,
} from "../norm/parts_backward.ts";
import { overGroup } from "../norm/steps.ts";
import { region } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { quote, refused, shown, wrongKind } from "../words.ts";
import { groupOf, stateOrNew } from "./apply.ts";
import { type AnyLayer, checkLayer, checkRank } from "./check_layer.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";
import {
  type BatchNormLayer,
  type LazyBatchNormLayer,
  type MaterializedLayer,
  withState,
} from "./layer.ts";

/** What `backwardLayerParts` needs of {@linkcode applyLayerParts}. */
export type LayerPartsSaved<A> =
  | {
    /** Name of the group of forward, or null. */
    readonly processGroup: null;
    /** What forward saved of each part. */
    readonly parts: readonly LocalSaved<A>[];
  }
  | { readonly processGroup: string; readonly parts: readonly GroupSaved<A>[] };

/** What {@linkcode applyLayerParts} resolves to. */
export interface LayerPartsForward<A, L> {
  /** The normalized parts. */
  readonly outputs: readonly Tensor<A>[];
  /** The layer after this batch; the given one where nothing changed. */
  readonly layer: L;
  /** What backward needs. */
  readonly saved: LayerPartsSaved<A>;
}

const FORWARD = "apply the layer to the parts";
const BACKWARD = "compute the layer's gradients of the parts";

/**
 * Runs a layer in training over several tensors as the one batch that they make up, as `batchNormForwardParts` does, or
 * `syncBatchNormForwardParts` over the group that it names.
 *
 * @param layer the layer before this batch, which learns; it is not changed
 * @param inputs this rank's parts, at least one
 * @param effects `device`; `groups` where the layer is synchronised
 * @returns outputs, new layer and what `backwardLayerParts` needs, all frozen
 * @throws (rejects with) what `applyLayer` rejects with; TypeError for a layer that is frozen, or has ghost or renorm: its
 * parts can be applied to by themselves
 *
 * @example
 * ```ts
 * import { applyLayerParts, initLayer, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const layer = initLayer(device, "batchNorm1d", 1, { eps: 0 });
 * const parts = [1, 3].map((value) => tensor(device, [value], [1, 1]));
 * const { outputs } = await applyLayerParts(layer, parts, { device });
 * assert.deepEqual(await toArray(device, outputs[1]), Float32Array.of(1));
 * ```
 */
export async function applyLayerParts<A, L extends BatchNormLayer<A> | LazyBatchNormLayer>(
  layer: L,
  inputs: readonly Tensor<A>[],
  effects: LayerEffects<A>,
  options: SyncPartsOptions<A> = {},
): Promise<LayerPartsForward<A, MaterializedLayer<A, L>>> {
  const named = groupOf(layer, effects);
  const own = { ...layer };
  const stateOf = (scope: Device<A>): BatchNormState<A> => {
    checkGiven(options, FORWARD);
    checkParts(own, inputs);
    if (named !== null) namedGroup(named.name, effects, FORWARD);
    return stateOrNew(own, inputs[0], scope);
  };
  const { signal, activation = own.activation, ...rest } = options ?? {};
  const chosen = { ...rest, activation };
  const done = (
    { outputs, state }: PartsForward<A, LocalSaved<A> | GroupSaved<A>>,
    saved: LayerPartsSaved<A>,
  ): LayerPartsForward<A, MaterializedLayer<A, L>> =>
    Object.freeze({
      outputs,
      layer: state === layer.state
        ? layer as MaterializedLayer<A, L>
        : withState<A, L>(own as L, state),
      saved: Object.freeze(saved),
    });
  if (named === null) {
    return region(checkDevice(effects, FORWARD).device, (scope) => {
      const state = stateOf(scope);
      const forward = batchNormForwardParts(state, inputs, { device: scope }, chosen);
      return done(forward, { processGroup: null, parts: forward.saved });
    });
  }
  const { group, name } = named;
  const channels = Array.isArray(inputs) ? inputs[0]?.shape?.[1] : inputs;
  const label = `applyLayerParts ${shown(own.kind)} ${quote(name)} C=${shown(channels)}`;
  const crossing = partsForward({ stateOf, inputs, options: chosen }, label);
  const forward = await overGroup({ device: effects.device, group }, { signal }, crossing);
  return done(forward, { processGroup: name, parts: forward.saved });
}

/**
 * Computes the gradients of {@linkcode applyLayerParts}, over the group of forward where there was one.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutputs gradients of the outputs, as many and in the same order
 * @param effects `device`; `groups` with the group of forward, where there was one
 * @returns frozen gradients; those of weight and bias are of this rank's parts
 * @throws (rejects with) what `batchNormBackwardParts` or `syncBatchNormBackwardParts` throws
 *
 * @example
 * ```ts
 * import { applyLayerParts, backwardLayerParts, initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const parts = [[1, 2], [6]].map((values) => tensor(device, values, [values.length, 1]));
 * const { saved } = await applyLayerParts(initLayer(device, "batchNorm1d", 1), parts, { device });
 * const { gradBias } = await backwardLayerParts(saved, parts, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(9));
 * ```
 */
export async function backwardLayerParts<A>(
  saved: LayerPartsSaved<A>,
  gradOutputs: readonly Tensor<A>[],
  effects: LayerEffects<A>,
  options: Pick<SyncPartsOptions, "signal"> = {},
): Promise<PartsBackward<A>> {
  if (saved?.processGroup === null) {
    const { device } = checkDevice(effects, BACKWARD);
    return batchNormBackwardParts(saved.parts, gradOutputs, { device });
  }
  if (typeof saved?.processGroup !== "string") {
    throw wrongKind(BACKWARD, "saved must be that of applyLayerParts", saved);
  }
  const { processGroup: name, parts } = saved;
  const group = namedGroup(name, effects, BACKWARD);
  const channels = parts?.[0]?.input?.shape?.[1];
  const label = `backwardLayerParts ${quote(name)} C=${channels}`;
  const crossing = partsBackward(parts, gradOutputs, label);
  return await overGroup({ device: effects.device, group }, options, crossing);
}

function checkParts<A>(layer: AnyLayer<A>, inputs: readonly Tensor<A>[]): void {
  checkLayer(layer, FORWARD);
  const way = (["frozen", "ghost", "renorm"] as const).find((name) => layer[name] !== undefined);
  if (way !== undefined) {
    const wanted = "the layer must normalize by the whole batch; apply any other to each part";
    throw refused(FORWARD, wanted, `layer has ${way}`);
  }
  if (!Array.isArray(inputs) || inputs.length === 0) {
    throw wrongKind(FORWARD, "inputs must be a list of at least one tensor", inputs);
  }
  for (const input of inputs) checkRank(layer.kind, input?.shape, FORWARD);
}

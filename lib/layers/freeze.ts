/** Layers that training leaves as they are, in part or altogether: one, or all of a model. */

import { checkOneOf, SWITCH } from "../check_value.ts";
import { checkLayer, lazyError } from "./check_layer.ts";
import type { BatchNormLayer } from "./layer.ts";
import { checkChoice, type LayerChoice, replaceLayers } from "./replace.ts";

/** Options of {@linkcode freeze}. */
export interface FreezeOptions extends LayerChoice {
  /** Whether weight and bias are fixed too; false by default. */
  readonly affine?: boolean;
}

/**
 * Fixes the running statistics of a layer, or of all layers of a model, for fine-tuning: training normalizes with them,
 * and neither updates them nor communicates. {@linkcode unfreeze} is the way back.
 *
 * A model is walked as in `convertSyncBatchNorm`: states are shared, all that is no layer is the same object.
 *
 * @param model a layer, or a tree of plain records and arrays with layers in it; it is not changed
 * @param options `affine`: whether weight and bias are fixed too, so that backward gives null for their gradients;
 * @returns a tree of the same type, frozen where it is new, whose layers share their states with the given one; a layer
 * stays as fixed as it was; the given one where nothing changed
 * @throws what `convertSyncBatchNorm` throws, but for groups; TypeError that names the path of a layer that has no running
 * statistics, or no state yet
 *
 * @example The first of two blocks
 * ```ts
 * import { applyLayer, freeze, initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const norm = () => initLayer(device, "batchNorm1d", 1, { processGroup: "world" });
 * const model = freeze({ blocks: [norm(), norm()] }, { only: (path) => path === "blocks.0" });
 * const [fixed, learning] = model.blocks;
 * const { layer } = await applyLayer(fixed, tensor(device, [1, 5], [2, 1]), { device });
 * console.assert(layer === fixed && learning.frozen === undefined);
 * ```
 */
export function freeze<T>(model: T, options: FreezeOptions = {}): T {
  const action = "freeze the layer";
  const choice = checkChoice(options, action, ["affine"]);
  checkOneOf(options.affine, SWITCH, "affine", action);
  return replaceLayers(model, choice, action, (layer, path, place) => {
    const here = path === "" ? action : place;
    if (layer.state === null) throw lazyError(layer, here);
    const frozen = options.affine || layer.frozen === "all" ? "all" : "statistics";
    if (layer.frozen === frozen) return layer;
    const result: BatchNormLayer<unknown> = Object.freeze({ ...layer, frozen });
    checkLayer(result, here);
    return result;
  });
}

/**
 * Lets a frozen layer, or all layers of a model, learn again.
 *
 * @param model a layer, or a tree as of {@linkcode freeze}; it is not changed
 * @returns a tree of the same type, whose layers are as they were before {@linkcode freeze} and share their states with the
 * given one; the given one where all learn
 * @throws what {@linkcode freeze} throws, but for what a layer lacks
 *
 * @example
 * ```ts
 * import { freeze, initLayer, referenceDevice, unfreeze } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const model = { stem: [initLayer(referenceDevice(), "batchNorm1d", 1)] };
 * assert.deepEqual(unfreeze(freeze(model)), model);
 * ```
 */
export function unfreeze<T>(model: T, options: LayerChoice = {}): T {
  const action = "unfreeze the layer";
  const choice = checkChoice(options, action, ["affine"]);
  return replaceLayers(model, choice, action, (layer) => {
    if (layer.frozen === undefined) return layer;
    const { frozen: _, ...learning } = layer;
    return Object.freeze(learning);
  });
}

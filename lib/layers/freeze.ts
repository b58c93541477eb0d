/**
 * Layers that training leaves as they are, in part or altogether.
 *
 * @module
 */

import { checkLayer, lazyError } from "./check_layer.ts";
import type { BatchNormLayer } from "./layer.ts";

/** Options of {@linkcode freeze}. */
export interface FreezeOptions {
  /** Whether weight and bias are fixed too; false by default. */
  readonly affine?: boolean;
}

/**
 * Fixes a layer's running statistics, for fine-tuning: training normalizes with them, and neither updates them nor
 * communicates. {@linkcode unfreeze} is the way back.
 *
 * @param layer the layer; it is not changed
 * @param options `affine`: whether weight and bias are fixed too, so that backward gives null for their gradients
 * @returns a frozen layer that shares its state with the given one, which stays as fixed as it was; the given one where
 * nothing changed
 * @throws TypeError where the layer has no running statistics, or is none
 *
 * @example
 * ```ts
 * import { applyLayer, freeze, initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const fixed = freeze(initLayer(device, "batchNorm1d", 1, { processGroup: "world" }));
 * const { layer } = await applyLayer(fixed, tensor(device, [1, 5], [2, 1]), { device });
 * console.assert(layer === fixed);
 * ```
 */
export function freeze<A, L extends BatchNormLayer<A>>(
  layer: L,
  { affine = false }: FreezeOptions = {},
): L {
  const action = "freeze the layer";
  checkLayer<A>(layer, action);
  if (layer.state === null) throw lazyError(layer, action);
  const frozen = affine || layer.frozen === "all" ? "all" : "statistics";
  if (layer.frozen === frozen) return layer;
  const result = Object.freeze({ ...layer, frozen });
  checkLayer<A>(result, action);
  return result;
}

/**
 * Lets a frozen layer learn again.
 *
 * @param layer the layer; it is not changed
 * @returns a frozen layer as it was before {@linkcode freeze}, that shares its state with the given one; the given one
 * where it learns
 * @throws TypeError or RangeError for what is no layer
 *
 * @example
 * ```ts
 * import { freeze, initLayer, referenceDevice, unfreeze } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const layer = initLayer(referenceDevice(), "batchNorm1d", 1);
 * assert.deepEqual(unfreeze(freeze(layer)), layer);
 * ```
 */
export function unfreeze<A, L extends BatchNormLayer<A>>(layer: L): L {
  checkLayer<A>(layer, "unfreeze the layer");
  if (layer.frozen === undefined) return layer;
  const { frozen: _, ...learning } = layer;
  return Object.freeze(learning) as L;
}

/** Any change to the layers of a model, wherever they stand in it. */

import { checkLayer, lazyError } from "./check_layer.ts";
import type { BatchNormLayer } from "./layer.ts";
import { checkChoice, type LayerChoice, replaceLayers } from "./replace.ts";

/**
 * Replaces every layer of a model by what a function makes of it: other settings, other parameters, another state.
 *
 * A model is walked as in `convertSyncBatchNorm`; a layer that stands at several paths is replaced once, and stays one.
 *
 * @param model a layer, or a tree of plain records and arrays with layers in it; it is not changed
 * @param replace makes the new layer of the old one and its path (the first that is meant); the same object to leave it
 * @param options `only`: which paths
 * @returns a tree of the same type, frozen where it is new; the given one where nothing changed
 * @throws what `replace` throws; TypeError or RangeError that names the path of what `replace` returned where that is no
 * layer, of a layer without a state, of a cycle, of a layer that stands at several paths of which `only` takes some; where
 * there is no layer at all
 *
 * @example Another momentum for all of a model
 * ```ts
 * import { initLayer, mapLayers, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const model = { blocks: [initLayer(device, "batchNorm1d", 4), initLayer(device, "batchNorm1d", 8)] };
 * const slower = mapLayers(model, (layer) => ({
 *   ...layer,
 *   state: { ...layer.state, momentum: 0.01 },
 * }));
 * console.assert(slower.blocks.every(({ state }) => state.momentum === 0.01));
 * ```
 */
export function mapLayers<T, A>(
  model: T,
  replace: (layer: BatchNormLayer<A>, path: string) => BatchNormLayer<A>,
  options: LayerChoice = {},
): T {
  const action = "map the layers";
  return replaceLayers<T, A>(model, checkChoice(options, action), action, (layer, path, here) => {
    if (layer.state === null) throw lazyError(layer, here);
    const result = replace(layer, path);
    if (result === layer) return layer;
    checkLayer(result, here);
    return Object.freeze({ ...result, state: Object.freeze({ ...result.state }) });
  });
}

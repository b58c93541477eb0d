/** A whole model checked at once, before training begins. */

import { checkDevice } from "../check_effects.ts";
import { checkState } from "../check_state.ts";
import { called } from "../tree.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";
import { type LayerChoice, layersOf } from "./replace.ts";

/**
 * Checks all layers of a model against what they will be run with.
 *
 * Once before training: a layer that cannot be run is found by its path, before a rank stands in a collective where
 * the others wait. The model is walked as in `convertSyncBatchNorm`, and may be of classes altogether.
 *
 * @param model a tree with layers as of `initLayer` in it
 * @param effects `device`: where the layers live; `groups`: by the names that synchronised layers call them by
 * @param options `allowNone`: whether a model without any layer passes; false by default
 * @throws TypeError or RangeError that names the path of a cycle, of a node with the `kind` of a layer that is none, of a
 * state whose vectors do not match or are not live on the device, of a group that `effects.groups` lacks;
 * where there is no layer at all
 *
 * @example
 * ```ts
 * import { checkModel, initLayer, referenceDevice } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const model = { norm: initLayer(device, "batchNorm1d", 2, { processGroup: "tower" }) };
 * assert.throws(() => checkModel(model, { device }), /at norm as effects\.groups must hold .*"tower"/);
 * ```
 */
export function checkModel<A>(
  model: unknown,
  effects: LayerEffects<A>,
  options: Pick<LayerChoice, "allowNone"> = {},
): void {
  const action = "use the model";
  const { device } = checkDevice(effects, action);
  const layers = layersOf<A>(model, action, options);
  for (const [{ state, processGroup, frozen }, [path]] of layers) {
    const here = `${action} at ${called(path)}`;
    if (state !== null) checkState(device, state, here);
    if (processGroup === null || frozen !== undefined) continue;
    namedGroup(processGroup, effects, here);
  }
}

/**
 * A whole model checked at once, before training begins.
 *
 * @module
 */

import { checkDevice } from "../check_effects.ts";
import { checkState } from "../check_state.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";
import { called } from "./model.ts";
import { layersOf } from "./replace.ts";

/**
 * Checks all layers of a model against what they will be run with.
 *
 * Once before training: a layer that cannot be run is found by its path, before a rank stands in a collective where
 * the others wait. Only plain records and arrays are looked into, as in `convertSyncBatchNorm`.
 *
 * @param model a tree of plain records and arrays with layers as of `initLayer` in it
 * @param effects `device`: where the layers live; `groups`: by the names that synchronised layers call them by
 * @throws TypeError or RangeError that names the path of a cycle, of a node with the `kind` of a layer that is none, of a
 * state whose vectors do not match or are not live on the device, of a group that `effects.groups` lacks
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
export function checkModel<A>(model: unknown, effects: LayerEffects<A>): void {
  const action = "use the model";
  const { device } = checkDevice(effects, action);
  for (const [{ state, processGroup, frozen }, [path]] of layersOf<A>(model, action)) {
    const here = `${action} at ${called(path)}`;
    if (state !== null) checkState(device, state, here);
    if (processGroup === null || frozen !== undefined) continue;
    namedGroup(processGroup, effects, here);
  }
}

/**
 * What layers are run with: a device, and groups by their names; and a model checked against it before training.
 *
 * A layer names its group, and the effects have the groups: so a model is data, which travels, compares and is stored.
 * A name that only one rank lacks is that rank's own error, since it knows no group to tell; `checkModel` finds it
 * before training.
 */

import { checkDevice, checkGroup } from "../check_effects.ts";
import { checkState } from "../check_state.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { called } from "../tree.ts";
import { quote } from "../words.ts";
import { type LayerChoice, layersOf } from "./replace.ts";
/** What layers are run with. */
export interface LayerEffects<A> {
  /** Where everything lives. */
  readonly device: Device<A>;
  /** Groups by the names that layers call them by; not asked for where no layer is synchronised. */
  readonly groups?: Readonly<Record<string, ReduceGroup>>;
}

/** Finds a group by the name that a layer calls it by. */
export function namedGroup<A>(
  name: string,
  effects: LayerEffects<A>,
  action: string,
): ReduceGroup {
  const { groups, group } = (effects ?? {}) as LayerEffects<A> & { readonly group?: unknown };
  if (typeof groups === "object" && groups !== null && Object.hasOwn(groups, name)) {
    return checkGroup(groups[name], {}, action, { name: `effects.groups[${quote(name)}]` });
  }
  throw new TypeError(
    `Cannot ${action} as effects.groups must hold the group ${quote(name)}: current names are ${
      Object.keys(groups ?? {}).map(quote).join(", ") || "none"
    }${group === undefined ? "" : `; give { groups: { ${name}: group } } instead of { group }`}`,
  );
}

/**
 * Checks all layers of a model against what they will be run with.
 *
 * Once before training: a layer that cannot be run is found by its path, before a rank stands in a collective where
 * the others wait. The model is walked as in `convertSyncBatchNorm`, and may be of classes altogether.
 *
 * @param model a tree with layers as of `initLayer` in it
 * @param effects `device`: where the layers live; `groups`: by the names that synchronised layers call them by
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

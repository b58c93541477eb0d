/**
 * Whole models there and back: every batch norm synchronised, or none.
 *
 * A conversion never replaces a group: asked for two, it is an error with the layer's path. A layer that stands at
 * several paths stays one, so a choice of some of them is an error as well.
 */

import { refused, shown } from "../words.ts";
import { called } from "../tree.ts";
import { checkChoice, type LayerChoice, replaceLayers } from "./replace.ts";

/** Which layers a conversion is about, and their group. */
export interface ConvertOptions extends LayerChoice {
  /** Name of the group; see the functions for what they do without. */
  readonly processGroup?: string;
}

/**
 * Makes every batch norm of a model synchronised, as `torch.nn.SyncBatchNorm.convert_sync_batchnorm` does, but as a pure
 * function that loses nothing.
 *
 * States are shared, not copied. All other fields of a layer (activation, frozen, your own) stay; all other nodes are the
 * same objects; a layer that stands at several paths stays one. A layer that is synchronised already keeps its group.
 * Records, arrays, Maps, Sets and own fields of objects are looked into; getters, private fields, symbol keys and a layer's
 * own fields are not. An object of a class cannot be made again: where a layer in one would have to be replaced, that is an
 * error, so build such objects around a converted record.
 *
 * @param model a tree with layers as of `initLayer` in it, or a single one; it is not changed
 * @param options `processGroup`: name of the group, `"world"` by default; `only`: which paths; `allowNone`
 * @returns a tree of the same type, frozen where it is new; the given one where nothing changed
 * @throws TypeError or RangeError that names the path of a cycle, of a tree over 1,000 branches deep, of a node with the
 * `kind` of a layer that is none, of an object of a class with a layer in it, of a layer in another group than the one that
 * was asked for, of a layer that stands at several paths of which `only` takes some; where there is no layer at all
 *
 * @example
 * ```ts
 * import { convertSyncBatchNorm, initLayer, referenceDevice, revertSyncBatchNorm } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const model = { linear: { weight: [1, 2] }, norm: initLayer(device, "batchNorm1d", 2) };
 * const converted = convertSyncBatchNorm(model);
 * assert.equal(converted.norm.processGroup, "world");
 * assert.equal(converted.norm.state, model.norm.state);
 * assert.equal(converted.linear, model.linear);
 * assert.deepEqual(revertSyncBatchNorm(converted), model);
 * ```
 */
export function convertSyncBatchNorm<T>(model: T, options: ConvertOptions = {}): T {
  const action = "convert the model";
  return regroup(model, options, action, (group, wanted, path) => {
    if (group === null) return wanted ?? "world";
    if (wanted === undefined || group === wanted) return group;
    throw new TypeError(
      `Cannot ${action} as ${called(path)} must be in one group: current names are ` +
        `"${group}", which it is in, and "${wanted}"; revert it first, or leave it out by only`,
    );
  });
}

/**
 * Makes the batch norms of a model local again: the inverse of {@linkcode convertSyncBatchNorm}.
 *
 * Where some layers were synchronised before, revert the group that the conversion gave, if none of them was in it, or
 * choose by `only`: a layer does not remember what it was.
 *
 * @param model a tree as of {@linkcode convertSyncBatchNorm}; it is not changed
 * @param options `processGroup`: the group whose layers are meant, all groups by default; `only`: which paths;
 * `allowNone`
 * @returns a tree of the same type, frozen where it is new; the given one where nothing changed
 * @throws TypeError or RangeError where {@linkcode convertSyncBatchNorm} does, but for groups
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice, revertSyncBatchNorm } from "@syncbn/syncbn";
 *
 * const layer = initLayer(referenceDevice(), "batchNorm1d", 2, { processGroup: "world" });
 * console.assert(revertSyncBatchNorm([layer])[0].processGroup === null);
 * ```
 */
export function revertSyncBatchNorm<T>(model: T, options: ConvertOptions = {}): T {
  return regroup(
    model,
    options,
    "revert the model",
    (group, meant) => meant === undefined || meant === group ? null : group,
  );
}

function regroup<T>(
  model: T,
  options: ConvertOptions,
  action: string,
  groupOf: (group: string | null, asked: string | undefined, path: string) => string | null,
): T {
  const { processGroup: asked, ...choice } = checkChoice(options, action, ["processGroup"]);
  if (asked !== undefined && (typeof asked !== "string" || asked === "")) {
    const came = `value is ${shown(asked)}; groups themselves go into effects.groups`;
    throw refused(action, "processGroup must be the name of a group", came);
  }
  return replaceLayers(model, choice, action, (layer, path) => {
    const processGroup = groupOf(layer.processGroup, asked, path);
    return processGroup === layer.processGroup ? layer : Object.freeze({ ...layer, processGroup });
  });
}

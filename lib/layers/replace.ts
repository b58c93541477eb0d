/** The layers of a model, found and replaced: by any function of its user, and what the other functions over models share. */

import { checkFunction, checkOptions } from "../check_effects.ts";
import { wrongKind } from "../words.ts";
import {
  type AnyLayer,
  type BatchNormLayer,
  checkLayer,
  claimsLayer,
  lazyError,
} from "./check_layer.ts";
import { called, checkFound, checkRecord, type Nodes, nodesOf, withNodes } from "../tree.ts";

/** Which layers of a model are meant. */
export interface LayerChoice {
  /**
   * Whether the layer at a path is meant; all are by default. A path is made of keys and indices joined by dots, such as
   * `"blocks.0.norm"`, and is `""` for a model that is a layer itself.
   */
  readonly only?: (path: string) => boolean;
  /** Whether a model without any layer is taken as it is; false by default, as it is mostly not what it was taken for. */
  readonly allowNone?: boolean;
}

/** Finds the layers of a model and checks each, as far as can be told without its device. */
export function layersOf<A>(
  model: unknown,
  action: string,
  { allowNone = false }: Pick<LayerChoice, "allowNone"> = {},
): Nodes<AnyLayer<A>> {
  const layers = nodesOf(model, claimsLayer<A>, action);
  if (!allowNone) checkFound(layers.size, model, action, "a layer as of initLayer");
  for (const [layer, [path]] of layers) {
    const here = `${action} at ${called(path)}`;
    checkRecord(layer, here);
    checkLayer(layer, here);
  }
  return layers;
}

/** Replaces the nodes of a model that are meant. */
export function replaceNodes<T, N extends object>(
  model: T,
  nodes: Nodes<N>,
  only: (path: string) => boolean,
  action: string,
  replace: (node: N, path: string) => N,
): T {
  // A node that stays is not looked into either: what is in its own fields is its own.
  const replacements = new Map<N, N>([...nodes.keys()].map((node) => [node, node]));
  for (const [node, paths] of nodes) {
    const meant = paths.filter((path) => only(path));
    if (meant.length === 0) continue;
    const replacement = replace(node, meant[0]);
    if (replacement === node) continue;
    const taken = new Set(meant);
    const other = paths.find((path) => !taken.has(path));
    if (other !== undefined) {
      throw new TypeError(
        `Cannot ${action} as ${called(meant[0])} is the same layer as ${called(other)}: ` +
          `only must take both or neither, current choice is the former alone`,
      );
    }
    replacements.set(node, replacement);
  }
  return withNodes(model, replacements, action);
}

type Chosen = Required<Pick<LayerChoice, "only">>;

/** Checks a choice of layers, which takes all where none was made; `others` are the options beside it. */
export function checkChoice<O extends LayerChoice>(
  options: O,
  action: string,
  others: readonly string[] = [],
): O & Chosen {
  checkOptions(options, [...others, "only", "allowNone"], action);
  const { only = () => true } = options;
  if (typeof only === "function") return { ...options, only };
  throw wrongKind(action, "only must be a function of a path", only);
}

/** Replaces the layers of a model that are meant, by what is made of each, its path, and the words for where it is. */
export function replaceLayers<T, A = unknown>(
  model: T,
  choice: LayerChoice & Chosen,
  action: string,
  replace: (layer: AnyLayer<A>, path: string, here: string) => AnyLayer<A>,
): T {
  const layers = layersOf<A>(model, action, choice);
  return replaceNodes(
    model,
    layers,
    choice.only,
    action,
    (layer, path) => replace(layer, path, `${action} at ${called(path)}`),
  );
}

/**
 * Replaces every layer of a model by what a function makes of it: other settings, other parameters, another state.
 *
 * A model is walked as in `convertSyncBatchNorm`; a layer that stands at several paths is replaced once, and stays one.
 *
 * @param model a layer, or a tree of plain records and arrays with layers in it; it is not changed
 * @param replace makes the new layer of the old one and its path (the first that is meant); the same object to leave it
 * @returns a tree of the same type, frozen where it is new; the given one where nothing changed
 * @throws what `replace` throws; what `convertSyncBatchNorm` throws, but for groups; TypeError or RangeError that names the
 * path of what `replace` returned where that is no layer, of a layer without a state
 *
 * @example Another momentum for all of a model
 * ```ts
 * import { initLayer, mapLayers, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const model = { blocks: [initLayer(device, "batchNorm1d", 4), initLayer(device, "batchNorm1d", 8)] };
 * const slower = mapLayers(model, (layer) => ({ ...layer, state: { ...layer.state, momentum: 0.01 } }));
 * console.assert(slower.blocks.every(({ state }) => state.momentum === 0.01));
 * ```
 */
export function mapLayers<T, A>(
  model: T,
  replace: (layer: BatchNormLayer<A>, path: string) => BatchNormLayer<A>,
  options: LayerChoice = {},
): T {
  const action = "map the layers";
  checkFunction(replace, "replace", action);
  return replaceLayers<T, A>(model, checkChoice(options, action), action, (layer, path, here) => {
    if (layer.state === null) throw lazyError(layer, here);
    const result = replace(layer, path);
    if (result === layer) return layer;
    checkLayer(result, here);
    return Object.freeze({ ...result, state: Object.freeze({ ...result.state }) });
  });
}

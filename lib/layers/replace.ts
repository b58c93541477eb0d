/**
 * The layers of a model, found and replaced: what every function over a whole model shares.
 *
 * @module
 */

import { shown } from "../words.ts";
import { checkLayer, claimsLayer } from "./check_layer.ts";
import type { BatchNormLayer, LazyBatchNormLayer } from "./layer.ts";
import { called, isRecord, type Nodes, nodesOf, withNodes } from "./model.ts";

/** Which layers of a model are meant. */
export interface LayerChoice {
  /**
   * Whether the layer at a path is meant; all are by default. A path is made of keys and indices joined by dots, such as
   * `"blocks.0.norm"`, and is `""` for a model that is a layer itself.
   */
  readonly only?: (path: string) => boolean;
}

/** Any layer of a model. */
export type AnyLayer<A> = BatchNormLayer<A> | LazyBatchNormLayer;

/**
 * Finds the layers of a model and checks each as far as can be told without its device.
 *
 * @param model a tree of plain records and arrays
 * @param action what the caller was about to do, for the message
 * @returns the layers and their paths
 * @throws TypeError or RangeError that names the path of a cycle, or of a node with the `kind` of a layer that is none
 */
export function layersOf<A>(model: unknown, action: string): Nodes<AnyLayer<A>> {
  const layers = nodesOf(model, isLayer<A>, action);
  for (const [layer, [path]] of layers) checkLayer(layer, `${action} at ${called(path)}`);
  return layers;
}

/**
 * Tells whether a node says that it is a layer.
 *
 * @param value any object
 * @returns whether it does; whether it is a sound one is another question
 */
export function isLayer<A>(value: object): value is AnyLayer<A> {
  return isRecord(value) && claimsLayer(value);
}

/**
 * Replaces the nodes of a model that are meant.
 *
 * @param model the tree that the nodes were found in; it is not changed
 * @param nodes all nodes that were found
 * @param only which paths are meant
 * @param action what the caller was about to do, for the message
 * @param replace makes the new node; called once for each, with the first of its paths that is meant
 * @returns a tree of the same make, frozen where it is new; the given one where nothing changed
 * @throws what `replace` throws; TypeError for a node that is replaced and stands at several paths, of which `only` takes
 * some
 */
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
  return withNodes(model, replacements);
}

/**
 * Refuses a model without a node of the kind that a call is about: it is not what the caller took it for.
 *
 * @param nodes what was found in it
 * @param model the model
 * @param action what the caller was about to do, for the message
 * @param wanted what there must be
 * @throws TypeError where nothing was found
 */
export function checkFound(
  nodes: Nodes<object>,
  model: unknown,
  action: string,
  wanted = "a layer { kind, processGroup, state }",
): void {
  if (nodes.size > 0) return;
  const isObject = typeof model === "object" && model !== null;
  const held = isObject ? Object.keys(model).slice(0, 8).join(", ") || "nothing" : "";
  throw new TypeError(
    `Cannot ${action} as it must be ${wanted}, or a tree of plain records and arrays with one in ` +
      `it: current value ${isObject ? `holds ${held}` : `is ${shown(model)}`}`,
  );
}

/**
 * Checks a choice of layers.
 *
 * @param options options with `only`
 * @param action what the caller was about to do, for the message
 * @param names what the options are, for the message
 * @returns the choice, which takes all layers where none was made
 * @throws TypeError for options that are no record, or a choice that is no function
 */
export function checkChoice(
  options: LayerChoice,
  action: string,
  names = "only",
): { readonly only: (path: string) => boolean } {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `Cannot ${action} as options must be { ${names} }: current value is ${shown(options)}`,
    );
  }
  const { only = () => true } = options;
  if (typeof only === "function") return { only };
  throw new TypeError(
    `Cannot ${action} as only must be a function of a path: current value is ${shown(only)}`,
  );
}

/** Which entries a model has in a state dict, in PyTorch's names and order. */

import type { Device } from "../../device.ts";
import { checkFound, placesOf } from "../../tree.ts";
import { quote, shown, wrongKind } from "../../words.ts";
import { claimsNode, type Part, partOf } from "./nodes.ts";

/** A name in a state dict, and what it names. */
export interface Entry<A> {
  readonly name: string;
  readonly part: Part<A>;
  readonly slot: number | "counter";
}

/** How the names of a model become those of a state dict. */
export interface StateDictOptions {
  /**
   * What names in the dict begin with, such as `"module."` from PyTorch's DistributedDataParallel; none by default. In
   * loading, entries that begin otherwise are somebody else's.
   */
  readonly prefix?: string;
  /** Makes the name in the dict, but for the prefix, of the model's own; the same by default. */
  readonly rename?: (name: string) => string;
  /** Whether the node at a path is meant; all are by default. */
  readonly only?: (path: string) => boolean;
  /** Whether a model without any node is taken; false by default, as it is mostly not what it was taken for. */
  readonly allowNone?: boolean;
}

const COUNTER = "num_batches_tracked";

/** A model taken apart. */
export interface Contents<A> {
  /** All its nodes, those that are not meant too. */
  readonly nodes: ReadonlySet<object>;
  /** The nodes that are meant, each once. */
  readonly parts: readonly Part<A>[];
  /** Its names in the order of the tree; those of a node that stands at several paths at each of them. */
  readonly entries: readonly Entry<A>[];
}

/** Finds the nodes of a model and their entries. */
export function contentsOf<A>(
  device: Device<A>,
  model: unknown,
  action: string,
  options: StateDictOptions = {},
): Contents<A> {
  const { prefix = "", rename = (name) => name, only = () => true, allowNone = false } = options;
  if (typeof prefix !== "string" || typeof rename !== "function" || typeof only !== "function") {
    throw new TypeError(
      `Cannot ${action} as prefix must be a text, rename and only functions: ` +
        `current values are ${shown(prefix)}, ${shown(rename)} and ${shown(only)}`,
    );
  }
  const isNode = (value: object): value is object => device.owns(value) || claimsNode(value);
  const parts = new Map<object, Part<A>>();
  const entries = new Map<string, Entry<A>>();
  const places = placesOf(model, isNode, action);
  if (!allowNone) {
    checkFound(places.length, model, action, "a layer, a state, a tensor or an array");
  }
  for (const [node, path] of places) {
    if (!only(path)) continue;
    const part = parts.get(node) ?? partOf(device, node, path, action);
    parts.set(node, part);
    const suffixes: (readonly [string, Entry<A>["slot"]])[] = [
      ...part.slots.map(({ suffix }, i) => [suffix, i] as const),
      ...part.counter === null ? [] : [[COUNTER, "counter"] as const],
    ];
    for (const [suffix, slot] of suffixes) {
      const own = [path, suffix].filter((text) => text !== "").join(".");
      const renamed: unknown = rename(own);
      if (typeof renamed !== "string") {
        throw wrongKind(action, `rename must return a name for ${quote(own)}`, renamed);
      }
      const name = prefix + renamed;
      const other = entries.get(name);
      if (other !== undefined && other.part !== part) {
        const why = "so a key is empty or has a dot in it, or rename made two names one";
        throw new TypeError(
          `Cannot ${action} as every entry must have a name of its own: current name ` +
            `${quote(name)} is that of two nodes, ${why}`,
        );
      }
      entries.set(name, { name, part, slot });
    }
  }
  const nodes = new Set(places.map(([node]) => node));
  return { nodes, parts: [...parts.values()], entries: [...entries.values()] };
}

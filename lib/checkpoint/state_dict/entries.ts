/**
 * Which entries a model has in a state dict, in PyTorch's names and order.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import { placesOf } from "../../layers/model.ts";
import { quote } from "../../words.ts";
import { claimsNode, type Part, partOf } from "./nodes.ts";

/** A name in a state dict, and what it names. */
export interface Entry<A> {
  readonly name: string;
  readonly part: Part<A>;
  /** Index of the slot, or the counter. */
  readonly slot: number | "counter";
}

const COUNTER = "num_batches_tracked";

/** A model taken apart. */
export interface Contents<A> {
  /** Its nodes, each once. */
  readonly parts: readonly Part<A>[];
  /** Its names in the order of the tree; those of a node that stands at several paths at each of them. */
  readonly entries: readonly Entry<A>[];
}

/**
 * Finds the nodes of a model and their entries.
 *
 * @param device the device that its arrays live on
 * @param model a tree of plain records and arrays
 * @param action what the caller was about to do, for the message
 * @returns its nodes and names
 * @throws TypeError or RangeError that names the path of what does not belong, or a name that two nodes would have
 */
export function contentsOf<A>(
  device: Device<A>,
  model: unknown,
  action: string,
): Contents<A> {
  const isNode = (value: object): value is object => device.owns(value) || claimsNode(value);
  const parts = new Map<object, Part<A>>();
  const entries = new Map<string, Entry<A>>();
  for (const [node, path] of placesOf(model, isNode, action)) {
    const part = parts.get(node) ?? partOf(device, node, path, action);
    parts.set(node, part);
    for (const [suffix, slot] of suffixesOf(part)) {
      const name = [path, suffix].filter((text) => text !== "").join(".");
      const other = entries.get(name);
      if (other !== undefined && other.part !== part) {
        throw new TypeError(
          `Cannot ${action} as every entry must have a name of its own: current name ` +
            `${quote(name)} is that of two nodes, so a key is empty or has a dot in it`,
        );
      }
      entries.set(name, { name, part, slot });
    }
  }
  return { parts: [...parts.values()], entries: [...entries.values()] };
}

function suffixesOf<A>({ slots, counter }: Part<A>): readonly [string, number | "counter"][] {
  return [
    ...slots.map(({ suffix }, i): [string, number] => [suffix, i]),
    ...(counter === null ? [] : [[COUNTER, "counter"] as [string, "counter"]]),
  ];
}

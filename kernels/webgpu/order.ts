/**
 * In which order the launches of a batch run: groups of channels, one after the other, through a reduction and what uses it.
 *
 * A tensor that is larger than the cache has left it when its second walk begins. Where both walks are cut into the same
 * groups of channels, each group goes through both before the next one begins, and is read from memory once.
 *
 * @module
 */

import type { Block } from "./memory.ts";

/** A launch, as far as order is concerned. */
export interface Ordered {
  /** The walk that it is a box of; null for one that is no walk over a tensor. */
  readonly walk: object | null;
  /** Channels [from, to) that it works on. */
  readonly channels: readonly [from: number, to: number];
  /** What it binds, and whether it writes there. */
  readonly bound: readonly { readonly block: Block; readonly written: boolean }[];
}

/**
 * Reorders launches without changing what any of them reads: groups of channels first where two neighbouring walks have the same
 * ones.
 */
export function inGroups<L extends Ordered>(launches: readonly L[]): readonly L[] {
  const walks: L[][] = [];
  for (const launch of launches) {
    const last = walks.at(-1);
    if (last && launch.walk !== null && last[0].walk === launch.walk) last.push(launch);
    else walks.push([launch]);
  }
  const ordered: L[] = [];
  for (let i = 0; i < walks.length; i++) {
    const [first, second = []] = walks.slice(i, i + 2);
    const groups = groupsOf(first);
    if (groups.size < 2 || !same(groups, groupsOf(second)) || !independent(first, second)) {
      ordered.push(...first);
      continue;
    }
    const follow = groupsOf(second);
    for (const [channels, launches] of groups) ordered.push(...launches, ...follow.get(channels)!);
    i++;
  }
  return ordered;
}

function groupsOf<L extends Ordered>(walk: readonly L[]): Map<string, L[]> {
  const groups = new Map<string, L[]>();
  for (const launch of walk) {
    const key = launch.channels.join(" ");
    const group = groups.get(key);
    if (group) group.push(launch);
    else groups.set(key, [launch]);
  }
  return groups;
}

function same(a: ReadonlyMap<string, unknown>, b: ReadonlyMap<string, unknown>): boolean {
  return a.size === b.size && [...a.keys()].every((key) => b.has(key));
}

/**
 * Whether a group of the second walk may run before later groups of the first: it writes nothing that those bind. What it
 * reads of the first walk's results are the records of its own channels.
 */
function independent(first: readonly Ordered[], second: readonly Ordered[]): boolean {
  const bound = new Set(first.flatMap(({ bound }) => bound.map(({ block }) => block)));
  return second.every(({ bound: parts }) =>
    parts.every(({ block, written }) => !written || !bound.has(block))
  );
}

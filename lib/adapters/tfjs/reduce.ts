/**
 * Collectives of the adapter: a group of one calls none, and a failure takes the place of what a rank would have brought.
 *
 * @module
 */

import type { BlockingGroup, Combine } from "../../collectives.ts";
import { digest } from "../../bits.ts";
import { CollectiveError, isCollectiveError } from "../../errors.ts";
import { sum } from "../../moments.ts";

/** Reduces over a group, of which one rank alone calls no collective. */
export function reduced(
  { worldSize, allReduceBlocking }: BlockingGroup,
  local: () => Float64Array,
  combine: Combine,
  label: string,
): Float64Array {
  return worldSize === 1 ? local() : allReduceBlocking(local, combine, { label });
}

/**
 * Tells the other ranks of this rank's failure where they wait for it, and throws it. Whoever learnt of it by a collective
 * has no one to tell.
 */
export function tell(group: BlockingGroup, error: unknown, label: string): never {
  if (isCollectiveError(error)) throw error;
  reduced(
    group,
    () => {
      throw error;
    },
    sum,
    label,
  );
  throw error;
}

/** Keeps what all ranks have alike; NaN where they differ. */
const agreed: Combine = (a, b) => a.map((value, i) => value === b[i] ? value : NaN);

/**
 * Checks that all ranks bring the same words, by a digest of them; a rank that fails to make them is told of to all. It
 * finds out, too, whether the group can hold up this thread, before anything is changed.
 */
export function agree(
  group: BlockingGroup,
  words: () => ArrayLike<number>,
  label: string,
  differing: string,
): void {
  const total = reduced(group, () => Float64Array.from(digest(words())), agreed, label);
  if (!total.some(Number.isNaN)) return;
  const ranks = Array.from({ length: group.worldSize }, (_, rank) => rank);
  throw new CollectiveError(differing, "disagreement", ranks);
}

/** A text as words. */
export function wordsOfText(text: string): ArrayLike<number> {
  return Array.from(text, (character) => character.codePointAt(0) ?? 0);
}

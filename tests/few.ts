/** Arbitraries of which only so many values are drawn. */

import fc from "fast-check";

/**
 * What an arbitrary draws, or only so many of it, the same each time: where each has kernels of its own, which a software
 * adapter takes half a second to compile, all that they do not depend on is drawn anew.
 */
export function fewOf<T>(arbitrary: fc.Arbitrary<T>, count?: number): fc.Arbitrary<T> {
  if (count === undefined) return arbitrary;
  return fc.constantFrom(...fc.sample(arbitrary, { numRuns: count, seed: 1 }));
}

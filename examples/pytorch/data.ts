/**
 * What the examples compute with: seeded numbers, and rows to learn from.
 *
 * @module
 */

import { seeded } from "../batches.ts";

/** Rows of a rank. */
export interface Rows {
  /** Inputs, shape (N, 20), float32. */
  readonly x: Float32Array<ArrayBuffer>;
  /** What 100 outputs are to become: each is one of the inputs. Shape (N, 100), float32. */
  readonly wanted: Float32Array<ArrayBuffer>;
}

/**
 * Draws standard normal numbers (Box and Muller 1958).
 *
 * @param shape extents, whose product is how many
 * @param seed where they come from: the same seed gives the same numbers
 * @returns the numbers, float32
 */
export function randn(shape: readonly number[], seed: number): Float32Array<ArrayBuffer> {
  const { unit } = seeded(seed);
  // The first outputs of small seeds are much alike.
  for (let i = 0; i < 16; i++) unit();
  const values = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
  for (let i = 0; i < values.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - unit()));
    const angle = 2 * Math.PI * unit();
    values[i] = radius * Math.cos(angle);
    // Past the end of an odd number of values this writes nothing.
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/**
 * Deals rows out to ranks, in rank order: however they are cut, all ranks together have the same rows.
 *
 * @param counts number of rows of each rank, of one total
 * @param rank whose rows
 * @returns this rank's rows
 */
export function share(counts: readonly number[], rank: number): Rows {
  const before = (ranks: number) => counts.slice(0, ranks).reduce((total, n) => total + n, 0);
  const all = randn([before(counts.length), 20], 1);
  const x = all.slice(20 * before(rank), 20 * before(rank + 1));
  const wanted = Float32Array.from(
    { length: 100 * counts[rank] },
    (_, at) => x[20 * Math.floor(at / 100) + at % 20],
  );
  return { x, wanted };
}

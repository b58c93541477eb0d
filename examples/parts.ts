/**
 * Parts of a gradient, and the whole of them.
 *
 * @module
 */

import { LENGTH } from "./blocks.ts";
import type { Layers } from "./layers.ts";

/** A part of the gradient and where it stands. */
export type Part<V> = readonly [at: number, values: V];

/** A gradient of the library as a part; none for null. */
export async function vectorOf<V, A>(
  gradient: A | null,
  at: number,
  layers: Layers<V, A>,
): Promise<readonly Part<V>[]> {
  return gradient === null ? [] : [[at, await layers.fromArray(gradient)]];
}

/** Reads all parts back at once and puts each in its place; what has no part is 0. */
export async function gather<V, A>(
  parts: readonly Part<V>[],
  layers: Layers<V, A>,
): Promise<Float64Array> {
  const gradient = new Float64Array(LENGTH);
  const values = await layers.read(...parts.map(([, vector]) => vector));
  parts.forEach(([at], i) => gradient.set(values[i], at));
  return gradient;
}

/** Seeded test data; no more of a package than that takes, since every rank of a group loads it. */

import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/** Numbers in [0, 1) from a seed. */
export function uniforms(seed: number): () => number {
  const generator = xoroshiro128plus(seed);
  // The first outputs of a small seed have nearly all bits set.
  for (let i = 0; i < 16; i++) generator.next();
  return () => (generator.next() & (2 ** 30 - 1)) / 2 ** 30;
}

/** Standard normal numbers from a seed (Box and Muller 1958). */
export function normals(seed: number): () => number {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** An array of standard normal numbers, scaled and shifted, as float32. */
export function normalArray(
  length: number,
  seed: number,
  mean = 0,
  std = 1,
): Float32Array<ArrayBuffer> {
  const normal = normals(seed);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = mean + std * normal();
  return values;
}

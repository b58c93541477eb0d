/**
 * Which images make up each step, and which replica gets which. All randomness of the demo begins here, from a seed.
 *
 * @module
 */

import { uniformFloat64 } from "pure-rand/distribution/uniformFloat64";
import { uniformInt } from "pure-rand/distribution/uniformInt";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/**
 * Fewest images in a batch, over all replicas. With two or three, even runs that differ by rounding alone may end more
 * than a point of accuracy apart, so that the final comparison would say nothing.
 */
export const SMALLEST_BATCH = 4;

/** A source of random numbers; each call goes on where the last one stopped. */
export interface Random {
  /** A number in [0, 1). */
  readonly unit: () => number;
  /** An integer from 0 to `limit` - 1. */
  readonly below: (limit: number) => number;
}

/** Makes the source of random numbers that belongs to a seed. */
export function seeded(seed: number): Random {
  const generator = xoroshiro128plus(seed);
  return Object.freeze({
    unit: () => uniformFloat64(generator),
    below: (limit: number) => uniformInt(generator, 0, limit - 1),
  });
}

/**
 * Shuffles the images anew for every epoch and cuts them into batches.
 *
 * The last batch of an epoch has what is left, or is left out where that is less than {@linkcode SMALLEST_BATCH}.
 *
 * @param images number of images
 * @param size images in a batch, over all replicas, {@linkcode SMALLEST_BATCH} or more
 * @param epochs how often every image is seen
 * @param random source of the shuffles
 * @returns the images of each step by their numbers
 */
export function drawBatches(
  images: number,
  size: number,
  epochs: number,
  random: Random,
): readonly (readonly number[])[] {
  const batches: number[][] = [];
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = shuffled(images, random);
    for (let at = 0; at < images; at += size) {
      const batch = order.slice(at, at + size);
      if (batch.length >= SMALLEST_BATCH) batches.push(batch);
    }
  }
  return batches;
}

/**
 * Cuts one replica's images out of a batch: `perReplica` for each in turn until none are left.
 *
 * So some replicas get fewer or none of an epoch's last batch, which makes no difference to syncbn. One image left over
 * joins the part before it, for the sake of local batch norm, which cannot normalize one value per channel.
 *
 * @param batch the images of a step, {@linkcode SMALLEST_BATCH} or more
 * @param rank the replica's number
 * @param perReplica images per replica
 * @returns the replica's images
 */
export function share(
  batch: readonly number[],
  rank: number,
  perReplica: number,
): readonly number[] {
  const end = (parts: number): number => {
    const images = Math.min(parts * perReplica, batch.length);
    return perReplica > 1 && images === batch.length - 1 ? batch.length : images;
  };
  return batch.slice(end(rank), end(rank + 1));
}

/** The numbers 0 .. count - 1 in random order (Fisher and Yates, as in Knuth's algorithm P). */
function shuffled(count: number, random: Random): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/**
 * Both examples, as one rank takes part in them.
 *
 * @module
 */

import type { ProcessGroup } from "../../mod.ts";
import { train } from "./convert.ts";
import { layers, type SeenLayers } from "./layers.ts";

/** What a rank has seen; plain data. */
export interface SeenExamples {
  /** Of the first example. */
  readonly layers: SeenLayers;
  /** Its model after the second one, as of `numbersOf`, with the statistics of all ranks. */
  readonly world: readonly number[];
  /** The same with the statistics of its half. */
  readonly half: readonly number[];
}

/** Steps of the second example. */
export const STEPS = 10;

/**
 * Runs both examples.
 *
 * @param world all ranks
 * @param shape of the first example's input on each rank, (N, 100, ...spatial)
 * @returns what this rank has seen
 */
export async function bothExamples(
  world: ProcessGroup,
  shape: readonly number[],
): Promise<SeenExamples> {
  const training = { counts: countsOf(world.worldSize), steps: STEPS };
  return {
    layers: await layers(world, shape),
    world: await train(world, { ...training, processGroup: "world" }),
    half: await train(world, { ...training, processGroup: "half" }),
  };
}

/**
 * Deals out rows unevenly: so many that no half's channel has next to no variance, which would magnify rounding.
 *
 * @param worldSize number of ranks
 * @returns how many rows each has
 */
export function countsOf(worldSize: number): readonly number[] {
  const counts = [9, 14, 8, 17];
  return Array.from({ length: worldSize }, (_, rank) => counts[rank % counts.length]);
}

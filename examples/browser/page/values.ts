/**
 * The values of one channel, replica by replica, and what a batch norm makes of them.
 *
 * @module
 */

import { BLOCKS } from "../../blocks.ts";
import { EPS } from "../../model.ts";
import type { Channel, Look } from "./state.ts";

/** A mean and a standard deviation (of the values themselves, not an estimate). */
export interface Statistics {
  readonly mean: number;
  readonly deviation: number;
}

/** The values of some images. */
export interface Values {
  readonly values: readonly number[];
  /** Number of values per image. */
  readonly perImage: number;
}

/** Takes the values of one channel out of a look, replica by replica. */
export function valuesOf({ features }: Look, { block, channel }: Channel): readonly Values[] {
  const { channels, side } = BLOCKS[block];
  return features.map((blocks) => {
    const own = blocks[block];
    const count = own.length / channels;
    return {
      values: Array.from({ length: count }, (_, i) => own[i * channels + channel]),
      perImage: side ** 2,
    };
  });
}

/** The statistics of values; of none, NaN. */
export function statisticsOf(values: readonly number[]): Statistics {
  const mean = values.reduce((total, value) => total + value, 0) / values.length;
  const squares = values.reduce((total, value) => total + (value - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / values.length) };
}

/** What a batch norm makes of values by statistics, before its scale and offset. */
export function normalized(
  values: readonly number[],
  { mean, deviation }: Statistics,
): readonly number[] {
  const spread = Math.sqrt(deviation ** 2 + EPS);
  return values.map((value) => (value - mean) / spread);
}

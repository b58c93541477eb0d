/**
 * Moving statistics in Keras's convention: momentum is what they keep of themselves.
 *
 * @module
 */

import type { TensorFlow, TfTensor } from "./framework.ts";
import type { Norm } from "./model.ts";

/** Lets the moving statistics of a batch norm follow the mean and the biased variance of a batch. */
export function follow(
  tf: TensorFlow,
  { movingMean, movingVariance, momentum }: Norm,
  { mean, variance }: Readonly<Record<"mean" | "variance", TfTensor>>,
): void {
  for (const [moving, seen] of [[movingMean, mean], [movingVariance, variance]] as const) {
    const before = moving.read();
    moving.write(tf.sub(before, tf.mul(tf.sub(before, seen), 1 - momentum)));
  }
}

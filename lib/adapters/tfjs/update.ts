/**
 * What a step changes, once all ranks have found the same: moving statistics in Keras's convention, and the parameters by
 * tfjs's own optimiser.
 *
 * @module
 */

import { compose } from "../../ownership.ts";
import type { Found, Seen, Training } from "./part.ts";
import type { TfTensor } from "./framework.ts";
import { follow } from "./moving.ts";

/** Writes moving statistics and parameters: all of them or, where something fails before, none. */
export async function update<A>(
  training: Training<A>,
  found: Found<A>,
): Promise<void> {
  const { tf, model, parameters, bridge } = training;
  const { totals } = found;
  const seen = found.seen.filter(({ moments: { count } }) => count !== 0);
  const statistics: TfTensor[] = [];
  const arrays = momentsToVectors(training, seen);
  try {
    for (const { moments: { shape: [, channels] } } of seen) {
      for (let i = 0; i < 2; i++) {
        statistics.push(await bridge.give(arrays[0], [channels]));
        arrays.shift();
      }
    }
    tf.tidy(() => {
      seen.forEach(({ layer, moments }, i) => {
        const [mean, unbiased] = statistics.slice(2 * i);
        const count = moments.count ?? Infinity;
        const variance = tf.mul(unbiased, count === Infinity ? 1 : (count - 1) / count);
        follow(tf, layer, { mean, variance });
      });
      let at = totals.length - parameters.reduce((sum, { size }) => sum + size, 0);
      model.optimizer.applyGradients(parameters.map(({ name, size, shape }) => {
        const values = Float32Array.from(totals.subarray(at, at += size));
        return { name, tensor: tf.tensor(values, shape, "float32") };
      }));
    });
  } finally {
    bridge.free(...arrays);
    tf.dispose(statistics);
    bridge.sweep();
  }
}

/** Mean and unbiased variance of each batch norm, one after the other: running statistics that forget what was before. */
function momentsToVectors<A>({ device }: Training<A>, seen: readonly Seen<A>[]): A[] {
  return compose(device, (d) =>
    seen.flatMap(({ moments: { data, shape: [, channels] } }) => {
      const zeros = d.upload(new Float32Array(channels));
      const before = { runningMean: zeros, runningVar: zeros };
      const { runningMean, runningVar } = d.updateRunningStats({
        ...{ running: before, moments: data, factor: 1 },
      });
      d.free(zeros);
      return [runningMean, runningVar];
    }));
}

/**
 * Loss, metrics and gradients of a rank's rows: as `fit` computes them, in their share of the whole, and as numbers to be summed.
 *
 * @module
 */

import type { TensorFlow, TfTensor } from "./framework.ts";
import type { LayersModel, Variable } from "./model.ts";

/** The loss of a rank's rows as `fit` computes it, in its share of the whole. */
export function lossOf(
  tf: TensorFlow,
  model: LayersModel,
  targets: readonly TfTensor[],
  outputs: readonly TfTensor[],
  share: number,
): TfTensor {
  const losses = model.lossFunctions.map((loss, i) => loss(targets[i], outputs[i]));
  const mean = tf.mean(losses.reduce((a, b) => tf.add(a, b)));
  const loss = model.calculateLosses().reduce((a, penalty) => tf.add(a, penalty), mean);
  return share === 1 ? loss : tf.mul(loss, share);
}

/** Scalars and gradients side by side on the host, in one readback. */
export async function packed(
  tf: TensorFlow,
  scalars: readonly TfTensor[],
  gradients: readonly (TfTensor | null)[],
  parameters: readonly Variable[],
): Promise<Float64Array> {
  try {
    if (gradients.every((gradient) => gradient === null)) {
      throw new TypeError(
        "Cannot train the model as its loss must depend on a parameter that is trained: none of " +
          `${parameters.length} has a gradient`,
      );
    }
    const all = tf.tidy(() => {
      const parts = gradients.map((gradient, i) => gradient ?? tf.zeros(parameters[i].shape));
      return tf.keep(
        tf.concat([...scalars, ...parts].map((part) => tf.reshape(part, [part.size]))),
      );
    });
    const values = await all.data();
    all.dispose();
    return Float64Array.from(values);
  } finally {
    tf.dispose(gradients.filter((gradient) => gradient !== null));
  }
}

/** The metrics of a rank's rows, in their share of the whole. */
export function metricsOf(
  tf: TensorFlow,
  { metricsTensors }: LayersModel,
  targets: readonly TfTensor[],
  outputs: readonly TfTensor[],
  share: number,
): readonly TfTensor[] {
  return tf.tidy(() =>
    metricsTensors.map(([metric, i]) =>
      tf.keep(tf.mul(tf.mean(metric(targets[i], outputs[i])), share))
    )
  );
}

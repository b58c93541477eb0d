/**
 * A batch norm of a model that takes its training statistics over a group: its class, name, config and weights stay
 * Keras's, what it computes in training is replaced.
 *
 * @module
 */

import type { BlockingGroup } from "../../collectives.ts";
import type { NormKernels } from "./kernels.ts";
import { follow } from "./moving.ts";
import { scaled } from "./tf_kernels.ts";
import { normalizeOver } from "./operation.ts";
import type { PlacedNorm } from "./internals.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import type { CallOptions, Layer, Norm } from "./model.ts";
import { axisOf, vectorsOf, viewOf } from "./view.ts";

/** Whether the rows that a rank's layers see count; a rank without rows lets others stand in for them. */
export interface Presence {
  counted: boolean;
}

/** Under which a layer that is synchronised holds its presence: the same in all copies of the library. */
const SYNCED = Symbol.for("syncbn.tfjs.presence");

/** The presence of a layer that is synchronised, or null. */
export function presenceOf(layer: Layer): Presence | null {
  return (layer as { readonly [SYNCED]?: Presence })[SYNCED] ?? null;
}

/** Makes a batch norm synchronised. The layer is a new one of a copy, which nobody else has seen. */
export function synchronize(
  tf: TensorFlow,
  { norm, place }: PlacedNorm,
  { kernels, group }: { readonly kernels: NormKernels; readonly group: BlockingGroup },
  presence: Presence,
): void {
  const own = norm.call.bind(norm);
  const call = (inputs: TfTensor | readonly TfTensor[], options: CallOptions | undefined) => {
    const x = Array.isArray(inputs) ? inputs[0] : inputs as TfTensor;
    if (options?.training) {
      const { counted } = presence;
      return trained(tf, norm, x, { kernels, group, place: { label: place, counted } });
    }
    // Its own is wrong along other axes on the CPU, and has no rank above 4.
    const simple = x.shape.length <= 4 && axisOf(x.shape, norm.axis) === x.shape.length - 1;
    return simple ? own(inputs, options) : inferred(tf, norm, x);
  };
  Object.defineProperties(norm, {
    call: { value: call, configurable: true, writable: true },
    [SYNCED]: { value: presence },
  });
}

/** Training: with the statistics of the whole batch, which the moving ones follow in Keras's convention. */
function trained(
  tf: TensorFlow,
  norm: Norm,
  x: TfTensor,
  effects: Parameters<typeof normalizeOver>[2],
): TfTensor {
  return tf.tidy(() => {
    const { gamma, beta, axis, epsilon } = norm;
    const parameters = { gamma: gamma?.read() ?? null, beta: beta?.read() ?? null };
    const input = { x, ...parameters, axis, epsilon };
    const { y, mean, variance, count } = normalizeOver(tf, input, effects);
    const vector = (values: Float32Array) => tf.tensor(values, [values.length]);
    if (count > 0) follow(tf, norm, { mean: vector(mean), variance: vector(variance) });
    return y;
  });
}

/** Evaluation along any axis and of any rank: with the moving statistics. */
function inferred(tf: TensorFlow, norm: Norm, x: TfTensor): TfTensor {
  return tf.tidy(() => {
    const { gamma, beta, epsilon, movingMean, movingVariance } = norm;
    const view = viewOf(x, norm.axis);
    const vector = vectorsOf(tf, view);
    const mean = vector(movingMean.read().dataSync() as Float32Array);
    const deviation = tf.sub(tf.reshape(x, view), mean);
    const y = scaled(tf, deviation, {
      ...{ view, epsilon, gamma: gamma?.read() ?? null, beta: beta?.read() ?? null },
      variance: movingVariance.read().dataSync() as Float32Array,
    });
    return tf.reshape(y, x.shape);
  });
}

/**
 * The kernels of a batch norm by tfjs's own operations, whichever its backend.
 *
 * @module
 */

import { momentsWire, sumsWire } from "../../wire.ts";
import { meanAndVariance, type NormKernels, type NormPass } from "./kernels.ts";
import { tfSecond } from "./tf_second.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { axesOf, vectorsOf } from "./view.ts";

/** The kernels of tfjs itself, whichever its backend. */
export function tfKernels(tf: TensorFlow): NormKernels {
  return Object.freeze<NormKernels>({
    wires: { moments: momentsWire, sums: sumsWire },
    forward: ({ x, view, gamma, beta, epsilon, counted }, reduce) => {
      const [, channels] = view;
      const input = tf.reshape(x, view);
      const axes = axesOf(view);
      const total = reduce(() => {
        const wire = new Float64Array(1 + 2 * channels);
        if (!counted || x.size === 0) return wire;
        const mean = tf.mean(input, axes, true);
        const m2 = tf.sum(tf.square(tf.sub(input, mean)), axes);
        wire[0] = x.size / channels;
        wire.set(mean.dataSync(), 1);
        wire.set(m2.dataSync(), 1 + channels);
        return wire;
      });
      if (x.size === 0) return x.clone();
      const { mean, variance } = meanAndVariance(total, channels);
      const vector = vectorsOf(tf, view);
      const y = view.length === 2
        ? tf.batchNorm2d(
          ...[input, vector(mean), vector(variance)] as const,
          ...[beta ?? undefined, gamma ?? undefined, epsilon] as const,
        )
        : scaled(tf, tf.sub(input, vector(mean)), { view, variance, epsilon, gamma, beta });
      return tf.reshape(y, x.shape);
    },
    backward: ({ x, view, gamma, epsilon, counted }, dy, moments, reduce) => {
      const [, channels] = view;
      const [count] = moments;
      const { mean, variance } = meanAndVariance(moments, channels);
      const vector = vectorsOf(tf, view);
      const gradient = tf.reshape(dy, view);
      const deviation = tf.sub(tf.reshape(x, view), vector(mean));
      const own = new Float64Array(2 * channels);
      const total = reduce(() => {
        if (!counted || x.size === 0) return own;
        const axes = axesOf(view);
        own.set(tf.sum(gradient, axes).dataSync());
        own.set(tf.sum(tf.mul(gradient, deviation), axes).dataSync(), channels);
        return own;
      });
      const inverse = Float64Array.from(variance, (value) => 1 / Math.sqrt(value + epsilon));
      const perChannel = (make: (c: number) => number) =>
        Float32Array.from({ length: channels }, (_, c) => make(c));
      const share = (c: number) => count > 0 ? total[c] / count : 0;
      const slope = perChannel((c) => inverse[c] ** 2 * share(channels + c));
      const scale = vector(perChannel((c) => inverse[c]));
      const centred = tf.sub(
        tf.sub(gradient, vector(perChannel(share))),
        tf.mul(deviation, vector(slope)),
      );
      const factor = gamma ? tf.mul(scale, tf.reshape(gamma, scale.shape)) : scale;
      return {
        dx: x.size === 0 ? x.clone() : tf.reshape(tf.mul(centred, factor), x.shape),
        dgamma: tf.tensor(perChannel((c) => inverse[c] * own[channels + c]), [channels]),
        dbeta: tf.tensor(perChannel((c) => own[c]), [channels]),
      };
    },
    second: (...given) => tfSecond(tf, ...given),
  });
}

/** deviation / sqrt(variance + epsilon) * gamma + beta, along the middle axis of a view. */
export function scaled(
  tf: TensorFlow,
  deviation: TfTensor,
  { view, variance, epsilon, gamma, beta }:
    & Pick<NormPass, "view" | "epsilon" | "gamma" | "beta">
    & { readonly variance: Float32Array },
): TfTensor {
  const vector = vectorsOf(tf, view);
  const inverse = vector(Float32Array.from(variance, (value) => 1 / Math.sqrt(value + epsilon)));
  const factor = gamma ? tf.mul(inverse, tf.reshape(gamma, inverse.shape)) : inverse;
  const y = tf.mul(deviation, factor);
  return beta ? tf.add(y, tf.reshape(beta, inverse.shape)) : y;
}

/**
 * What a batch norm of tfjs's computes between its two collectives, as an interface of two functions, and the same by tfjs's
 * own operations.
 *
 * All shapes and axes are one: a tensor of any rank is seen as (A, C, B), with C the axis of channels, what stands before
 * it in A and what stands behind it in B, which costs no copy.
 *
 * @module
 */

import type { TensorFlow, TfTensor } from "./types.ts";

/** A tensor's extents as batch norm sees them; two where nothing stands behind the channels. */
export type View = readonly [before: number, channels: number, after?: number];

/** What a batch norm is computed from. */
export interface NormPass {
  /** The input. */
  readonly x: TfTensor;
  /** How it is seen. */
  readonly view: View;
  /** Scale and offset per channel. */
  readonly gamma: TfTensor | null;
  readonly beta: TfTensor | null;
  readonly epsilon: number;
  /** Whether the rows count: those of a rank that has none stand in for it, and bring nothing. */
  readonly counted: boolean;
}

/** Reduces what this rank makes over all ranks; a failure to make it is told to all. */
export type Reduce = (local: () => Float64Array) => Float64Array;

/** Gradients of this rank's rows. */
export interface NormGradients {
  readonly dx: TfTensor;
  /** Of shape (C), of this rank's rows alone. */
  readonly dgamma: TfTensor;
  readonly dbeta: TfTensor;
}

/** Two functions that compute a batch norm. Moments are [count, mean C, m2 C], gradient sums [sumDy C, sumDyXmu C]. */
export interface NormKernels {
  /** The normalised input, in the shape of x. */
  readonly forward: (pass: NormPass, reduce: Reduce) => TfTensor;
  /** `moments` are those that the input was normalised with. */
  readonly backward: (
    pass: NormPass,
    dy: TfTensor,
    moments: Float64Array,
    reduce: Reduce,
  ) => NormGradients;
}

/** Mean and biased variance of moments, as float32; of no rows 0. */
export function meanAndVariance(
  moments: Float64Array,
  channels: number,
): { readonly mean: Float32Array; readonly variance: Float32Array } {
  const [count] = moments;
  const m2 = moments.subarray(1 + channels);
  return {
    mean: Float32Array.from(moments.subarray(1, 1 + channels)),
    variance: Float32Array.from(m2, (value) => count > 0 ? value / count : 0),
  };
}

/** The kernels of tfjs itself, whichever its backend. */
export function tfKernels(tf: TensorFlow): NormKernels {
  return Object.freeze<NormKernels>({
    forward: ({ x, view, gamma, beta, epsilon, counted }, reduce) => {
      const [before, channels, after = 1] = view;
      const input = tf.reshape(x, view as readonly number[]);
      const axes = axesOf(view);
      const total = reduce(() => {
        const wire = new Float64Array(1 + 2 * channels);
        if (!counted || x.size === 0) return wire;
        const mean = tf.mean(input, axes, true);
        const m2 = tf.sum(tf.square(tf.sub(input, mean)), axes);
        wire[0] = before * after;
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
      const gradient = tf.reshape(dy, view as readonly number[]);
      const deviation = tf.sub(tf.reshape(x, view as readonly number[]), vector(mean));
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

/** All axes but the one of the channels. */
function axesOf({ length }: View): readonly number[] {
  return length === 2 ? [0] : [0, 2];
}

/** Makes vectors over the channels that broadcast along a view. */
export function vectorsOf(
  tf: TensorFlow,
  { 1: channels, length }: View,
): (values: Float32Array) => TfTensor {
  return (values) => tf.tensor(values, length === 2 ? [channels] : [channels, 1]);
}

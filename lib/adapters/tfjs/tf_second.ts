/**
 * The way back through a batch norm's backward pass by tfjs's own operations: the formulas of docs/numerics.md, whose factors
 * are one number for each channel, in float64 on the host.
 *
 * @module
 */

import { secondWire } from "../../norm/second_wire.ts";
import {
  meanAndVariance,
  type NormKernels,
  type NormPass,
  type SecondGradients,
} from "./kernels.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { axesOf, vectorsOf } from "./view.ts";

/** Sums over the positions of each channel: of dy, dy*d, a, a*d and a*dy, with d = x - mean and a the gradient by dx. */
type Sums = Readonly<Record<"s1" | "s2" | "a" | "b" | "d", ArrayLike<number>>>;

/** {@linkcode NormKernels.second}. */
export function tfSecond(
  tf: TensorFlow,
  ...[pass, given, moments, reduce]: Parameters<NormKernels["second"]>
): SecondGradients {
  const { x, view, gamma, epsilon } = pass;
  const [, channels] = view;
  const { mean, variance } = meanAndVariance(moments, channels);
  const vector = vectorsOf(tf, view);
  const seen = (tensor: TfTensor) => tf.reshape(tensor, view);
  const [dy, a] = [seen(given.dy), seen(given.byDx)];
  const deviation = tf.sub(seen(x), vector(mean));
  const [q, b] = [given.byDgamma.dataSync(), given.byDbeta.dataSync()];
  const own = sumsOf(tf, pass, { dy, a, deviation });
  const total = reduce(() => wireOf(own, q, channels));
  const [S1, S2, A, B, E, F, D] = Array.from(
    { length: 7 },
    (_, i) => total.subarray(i * channels, (i + 1) * channels),
  );
  const n = Math.max(moments[0], 1);
  const weight = gamma?.dataSync();
  const inverse = Float64Array.from(variance, (value) => 1 / Math.sqrt(value + epsilon));
  const perChannel = (make: (c: number, s: number, w: number) => number) =>
    Float32Array.from(inverse, (s, c) => make(c, s, weight ? weight[c] : 1));
  /** The sum of tensors times a factor for each channel, and of a constant. */
  const along = (
    terms: readonly (readonly [TfTensor, Float32Array])[],
    constant: Float32Array,
  ) => {
    const parts = terms.map(([tensor, factor]) => tf.mul(tensor, vector(factor)));
    return tf.reshape(
      tf.add(parts.reduce((sum, part) => tf.add(sum, part)), vector(constant)),
      x.shape,
    );
  };
  const byGamma = perChannel((c, s) =>
    s * (own.d[c] - own.a[c] * S1[c] / n - own.b[c] * s ** 2 * S2[c] / n)
  );
  return {
    byX: along(
      [
        [
          deviation,
          perChannel((c, s, w) =>
            s ** 3 / n * (w * (A[c] * S1[c] / n - D[c] + 3 * s ** 2 * S2[c] * B[c] / n) - F[c])
          ),
        ],
        [dy, perChannel((c, s, w) => s * q[c] - w * s ** 3 * B[c] / n)],
        [a, perChannel((c, s, w) => -w * s ** 3 * S2[c] / n)],
      ],
      perChannel((c, s, w) => w * s ** 3 * (B[c] * S1[c] + S2[c] * A[c]) / n ** 2 - s * E[c] / n),
    ),
    byGamma: tf.tensor(byGamma, [channels]),
    byDy: along(
      [
        [a, perChannel((_, s, w) => w * s)],
        [deviation, perChannel((c, s, w) => s * q[c] - w * s ** 3 * B[c] / n)],
      ],
      perChannel((c, s, w) => b[c] - w * s * A[c] / n),
    ),
  };
}

function sumsOf(
  tf: TensorFlow,
  { x, view, counted }: NormPass,
  { dy, a, deviation }: Readonly<Record<"dy" | "a" | "deviation", TfTensor>>,
): Sums {
  const nothing = new Float32Array(view[1]);
  const sum = (of: TfTensor) =>
    counted && x.size > 0 ? tf.sum(of, axesOf(view)).dataSync() : nothing;
  return {
    ...{ s1: sum(dy), s2: sum(tf.mul(dy, deviation)) },
    ...{ a: sum(a), b: sum(tf.mul(a, deviation)), d: sum(tf.mul(a, dy)) },
  };
}

/** This rank's part of the wire. */
function wireOf({ s1, s2, a, b, d }: Sums, q: ArrayLike<number>, channels: number): Float64Array {
  const weighted = (sums: ArrayLike<number>) => Array.from(sums, (value, c) => value * q[c]);
  const wire = new Float64Array(secondWire.length(channels));
  [s1, s2, a, b, weighted(s1), weighted(s2), d].forEach((part, i) => wire.set(part, i * channels));
  return wire;
}

/**
 * The oracle: batch normalization of one whole batch in plain float64, written from the formulas alone and without any
 * code of the library, so that the library's numbers have something to differ from.
 *
 * Values are in logical channels-first order whatever the tensor's format; {@linkcode permute} converts.
 */

/** A batch as logical (N, C, inner), flattened channels-first. */
export interface Batch {
  readonly values: ArrayLike<number>;
  readonly channels: number;
  readonly inner: number;
}

/** Parameters as plain numbers; null is absent. */
export interface Parameters {
  readonly weight: ArrayLike<number> | null;
  readonly bias: ArrayLike<number> | null;
  readonly eps: number;
}

/** Statistics per channel; variance is biased. */
export interface ChannelStats {
  readonly count: number;
  readonly mean: readonly number[];
  readonly variance: readonly number[];
}

/** Positions of each channel in channels-first order. */
function positions({ values, channels, inner }: Batch, channel: number): number[] {
  const samples = values.length / (channels * inner || 1);
  const at: number[] = [];
  for (let n = 0; n < samples; n++) {
    for (let i = 0; i < inner; i++) at.push((n * channels + channel) * inner + i);
  }
  return at;
}

const inverse = (variance: number, eps: number) =>
  variance + eps === 0 ? 0 : 1 / Math.sqrt(variance + eps);

/** Weights of the positions of each channel, in their order; all 1 where there are none. */
export type PositionWeights = ArrayLike<number> | null;

/** Count, mean and biased variance of each channel, by two passes; the count is the sum of the weights. */
export function statistics(batch: Batch, weights: PositionWeights = null): ChannelStats {
  const mean: number[] = [];
  const variance: number[] = [];
  let count = 0;
  for (let c = 0; c < batch.channels; c++) {
    const at = positions(batch, c);
    const sum = (term: (p: number) => number) => {
      let total = 0;
      for (let i = 0; i < at.length; i++) {
        const weight = weights === null ? 1 : weights[i];
        if (weight !== 0) total += weight * term(at[i]);
      }
      return total;
    };
    count = sum(() => 1);
    const m = sum((p) => batch.values[p]) / (count || 1);
    mean.push(m);
    variance.push(sum((p) => (batch.values[p] - m) ** 2) / (count || 1));
  }
  return { count, mean, variance };
}

/** y = (x - mean) * s * weight + bias + residual, then max(y, 0) where relu. */
export function forward(
  batch: Batch,
  { mean, variance }: ChannelStats,
  { weight, bias, eps }: Parameters,
  residual: ArrayLike<number> | null = null,
  relu = false,
): number[] {
  const output: number[] = new Array(batch.values.length);
  for (let c = 0; c < batch.channels; c++) {
    for (const p of positions(batch, c)) {
      const xhat = (batch.values[p] - mean[c]) * inverse(variance[c], eps);
      const y = xhat * (weight?.[c] ?? 1) + (bias?.[c] ?? 0) + (residual?.[p] ?? 0);
      output[p] = relu ? Math.max(y, 0) : y;
    }
  }
  return output;
}

/** Training forward of a whole batch, for finite differences: statistics follow the input. */
export function trainForward(
  batch: Batch,
  parameters: Parameters,
  residual: ArrayLike<number> | null = null,
  relu = false,
): number[] {
  return forward(batch, statistics(batch), parameters, residual, relu);
}

/** Gradients of training by the formulas: input, weight, bias. Weights scale the terms of the statistics. */
export function trainBackward(
  batch: Batch,
  gradOutput: ArrayLike<number>,
  { weight, eps }: Parameters,
  weights: PositionWeights = null,
): { gradInput: number[]; gradWeight: number[]; gradBias: number[] } {
  const { count, mean, variance } = statistics(batch, weights);
  const gradInput: number[] = new Array(batch.values.length);
  const gradWeight: number[] = [];
  const gradBias: number[] = [];
  for (let c = 0; c < batch.channels; c++) {
    const at = positions(batch, c);
    const s = inverse(variance[c], eps);
    const sumDy = at.reduce((total, p) => total + gradOutput[p], 0);
    const sumDyXhat = at.reduce(
      (total, p) => total + gradOutput[p] * (batch.values[p] - mean[c]) * s,
      0,
    );
    at.forEach((p, i) => {
      const xhat = (batch.values[p] - mean[c]) * s;
      const share = (weights?.[i] ?? 1) / count;
      gradInput[p] = (weight?.[c] ?? 1) * s *
        (gradOutput[p] - share * sumDy - share * xhat * sumDyXhat);
    });
    gradWeight.push(sumDyXhat);
    gradBias.push(sumDy);
  }
  return { gradInput, gradWeight, gradBias };
}

/** Central differences of a scalar function at each of the given values. */
export function centralDifferences(
  of: (values: Float64Array) => number,
  at: ArrayLike<number>,
  step: number,
): number[] {
  const point = Float64Array.from(at);
  return Array.from(point, (value, i) => {
    point[i] = value + step;
    const above = of(point);
    point[i] = value - step;
    const below = of(point);
    point[i] = value;
    return (above - below) / (2 * step);
  });
}

/** Reorders values between channels-first and channels-last memory order. */
export function permute(
  values: ArrayLike<number>,
  { channels, inner }: { readonly channels: number; readonly inner: number },
  to: "channelsFirst" | "channelsLast",
): Float32Array<ArrayBuffer> {
  const permuted = new Float32Array(values.length);
  const samples = values.length / (channels * inner || 1);
  for (let n = 0; n < samples; n++) {
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < inner; i++) {
        const first = (n * channels + c) * inner + i;
        const last = (n * inner + i) * channels + c;
        if (to === "channelsLast") permuted[last] = values[first];
        else permuted[first] = values[last];
      }
    }
  }
  return permuted;
}

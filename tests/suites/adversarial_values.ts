/**
 * What the adversarial suite feeds to devices, and what must come out: plain float64 arithmetic as IEEE 754 has it, and
 * one rounding to float32.
 */

import type { Format } from "../../mod.ts";
import type { DeviceKit } from "../kit.ts";
import { EPSILON } from "../kit.ts";
import * as oracle from "../oracle.ts";

/** The largest float32, and the smallest normal and subnormal ones. */
export const MAX = 2 ** 128 - 2 ** 104;
export const LEAST_NORMAL = 2 ** -126;
export const LEAST = 2 ** -149;

/** What suites need to know of a device's numbers. */
export type Numbers = Pick<
  DeviceKit<unknown>,
  "ulps" | "nonFinite" | "subnormals" | "arithmetic" | "deviations"
>;

/** Six values of a channel, and their mean and biased variance to all digits of a float64. */
export interface Batch {
  readonly what: string;
  readonly x: readonly number[];
  readonly mean: number;
  readonly variance: number;
}

/** Multiples of a factor rounded to float32, and their statistics. */
export function rounded(values: readonly number[], factor = 1): Omit<Batch, "what"> {
  const x = values.map((value) => Math.fround(value * factor));
  const { mean, variance } = oracle.statistics({ values: x, channels: 1, inner: 1 });
  return { x, mean: mean[0], variance: variance[0] };
}
const constant = (value: number) => ({ x: new Array<number>(6).fill(value), variance: 0 });
const RAMP = [1, 2, 3, 4, 5, 6];
const HUGE = Math.fround(3e38);
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** Every kind of batch, one after the other as channels of one tensor. */
export const BATCHES: readonly Batch[] = [
  { what: "NaN", x: [1, nan, 2, 3, 4, 5], mean: nan, variance: nan },
  { what: "ordinary", ...rounded(RAMP) },
  { what: "one infinity", x: [1, 2, inf, 3, 4, 5], mean: inf, variance: nan },
  { what: "minus infinity", x: [1, 2, 3, -inf, 4, 5], mean: -inf, variance: nan },
  { what: "both infinities", x: [inf, 2, 3, 4, 5, -inf], mean: nan, variance: nan },
  { what: "only infinities", ...constant(inf), mean: inf, variance: nan },
  { what: "huge around 0", ...rounded([1, -1, 1, -1, 1, -1], HUGE) },
  // x - mean is more than float32 holds: mean 2/3, deviations 1/3 and 5/3 of it.
  { what: "a huge outlier", ...rounded([1, 1, 1, 1, 1, -1], HUGE) },
  { what: "huge among small", ...rounded([HUGE, 1, 2, 3, 4, 5]) },
  { what: "the largest, constant", ...constant(MAX), mean: MAX },
  { what: "the largest, both signs", ...rounded([1, 1, 1, -1, -1, -1], MAX) },
  { what: "48 orders of magnitude", ...rounded([1, 1e-30, 1, 1e-30, 1e18, 1e-18]) },
  { what: "1 among 1e-30", ...rounded([1, 1e-30, 2e-30, 3e-30, 1e-30, -1e-30]) },
  { what: "1e25", ...rounded(RAMP, 1e25) },
  { what: "1e-15", ...rounded(RAMP, 1e-15) },
  { what: "1e-18", ...rounded(RAMP, 1e-18) },
  { what: "1e-30", ...rounded(RAMP, 1e-30) },
  { what: "1e-30, constant", ...constant(Math.fround(1e-30)), mean: Math.fround(1e-30) },
  { what: "subnormal", ...rounded(RAMP, 1e-40) },
  { what: "subnormal, constant", ...constant(5 * LEAST), mean: 5 * LEAST },
  { what: "-0", ...constant(-0), mean: 0 },
  { what: "0 and -0", x: [0, -0, -0, 0, -0, 0], mean: 0, variance: 0 },
];

/** Whether a batch is one of numbers whose differences and squares float32 holds. */
export function fits({ x, variance }: Batch): boolean {
  const most = Math.fround(2 * Math.max(...x.map(Math.abs)));
  return Number.isFinite(most) && Number.isFinite(Math.fround(6 * variance));
}

/** Whether a device's float32 arithmetic makes 0 of another number. */
export function underflows(value: number, { arithmetic }: Numbers): boolean {
  return arithmetic === "float32" && value !== 0 && Math.fround(value) === 0;
}

/** What a device shall take a variance for: too small a one is 0. */
export function counted(variance: number, eps: number, { arithmetic }: Numbers): number {
  const small = variance + eps >= 0 && variance + eps < LEAST_NORMAL;
  return small && arithmetic === "float32" ? -eps : variance;
}

/** Whether a device's float32 arithmetic makes an infinity of a finite number. */
export function overflows(value: number, { arithmetic }: Numbers): boolean {
  return arithmetic === "float32" && Number.isFinite(value) && !Number.isFinite(Math.fround(value));
}

/** Expected numbers before their rounding, and how far each may be off. */
export interface Expected {
  readonly values: readonly number[];
  readonly slack: readonly number[];
  /** Where float32 arithmetic overflows on the way: what is not finite will do there too. */
  readonly lost?: readonly boolean[];
}

/** Results of training on one channel. */
export interface Trained {
  readonly y: Expected;
  readonly dx: Expected;
  readonly runningMean: Expected;
  readonly runningVar: Expected;
  readonly gradWeight: Expected;
  readonly gradBias: Expected;
}

/** What training with momentum 1 must give on a channel. */
export function train(
  { x, mean, variance }: Batch,
  dy: readonly number[],
  { weight, bias, eps }: { readonly weight: number; readonly bias: number; readonly eps: number },
  numbers: Numbers,
): Trained {
  const N = x.length;
  const taken = counted(variance, eps, numbers);
  const s = taken + eps === 0 ? 0 : 1 / Math.sqrt(taken + eps);
  const xhat = x.map((v) => (v - mean) * s);
  const sumDy = dy.reduce((total, g) => total + g, 0);
  const terms = dy.map((g, i) => g === 0 ? 0 : g * (x[i] - mean));
  const sumDyXmu = terms.reduce((total, term) => total + term, 0);
  const dx = dy.map((g, i) =>
    weight * s * (g - sumDy / N - (x[i] - mean) * (s * s * sumDyXmu / N))
  );

  const unit = numbers.ulps * EPSILON.float32;
  // What a device may take for 0 is no digit either, nor is what it rounds to a subnormal number, wherever that goes.
  const least = numbers.subnormals ? numbers.ulps * LEAST : LEAST_NORMAL;
  const expected = (
    values: readonly number[],
    size: (value: number, at: number) => number,
    factor = 0,
  ): Expected => ({
    values,
    slack: values.map((value, at) => unit * size(value, at) + least * (1 + factor)),
  });
  const steepest = Math.max(...dy.map(Math.abs));
  const scale = Math.abs(weight) * s;
  const sum = terms.reduce((total, term) => total + Math.abs(term), 0);
  const lost = x.map((v) => overflows(v - mean, numbers));
  const isLost = numbers.deviations === "float32" && lost.includes(true);
  const lostInDx = dy.map((g, at) =>
    isLost || lost[at] ||
    [g - sumDy / N, dx[at] / (weight * s)].some((part) => overflows(part, numbers))
  );
  // Values of both signs may cancel to the last bit of float64, or not.
  const largest = Math.max(...x.filter(Number.isFinite).map(Math.abs), 0);
  // Next to the mean it is the mean that resolves, in units of the deviation: one at least.
  const size = (at: number) => (1 + Math.abs(xhat[at])) * Math.abs(weight) + Math.abs(bias);
  const y = expected(xhat.map((v) => v * weight + bias), (_, at) => size(at), scale);
  // Three terms, none larger than the steepest gradient times N.
  const gradInput = expected(dx, () => 3 * N * scale * steepest, scale * (1 + s * steepest));
  return {
    y: { ...y, lost },
    dx: { ...gradInput, lost: lostInDx },
    runningMean: expected([mean], (value) => Math.abs(value) + N * largest * 2 ** -29),
    runningVar: expected([variance * N / (N - 1)], Math.abs),
    gradWeight: {
      ...expected([s * sumDyXmu], () => s * sum, s * N * steepest),
      lost: [isLost],
    },
    gradBias: expected([sumDy], () => N * steepest),
  };
}

/**
 * Fails unless NaN is NaN, an infinity (after rounding to float32) that infinity, and a finite number within its
 * slack.
 */
export function assertValues(
  actual: ArrayLike<number>,
  { values, slack, lost }: Expected,
  what: string,
): void {
  if (actual.length !== values.length) {
    throw new Error(`${what}: ${actual.length} values instead of ${values.length}`);
  }
  values.forEach((value, i) => {
    const [is, wanted] = [actual[i], Math.fround(value)];
    const right = Number.isFinite(wanted)
      ? Math.abs(is - value) <= slack[i]
      : Object.is(is, wanted);
    if (right || (lost?.[i] && !Number.isFinite(is))) return;
    throw new Error(`${what}[${i}]: ${is} instead of ${wanted}, allowed ${slack[i]}`);
  });
}

/** Whether a device that may assume that there is no infinity has to get a batch right. */
export function promised(batch: Batch, { nonFinite }: Numbers): boolean {
  return nonFinite || fits(batch);
}

/** Puts six values of each channel into the memory order of shape (2, C, 3). */
export function pack(
  channels: readonly (readonly number[])[],
  format: Format,
): Float32Array<ArrayBuffer> {
  const C = channels.length;
  const values = [0, 1].flatMap((n) => channels.flatMap((x) => x.slice(3 * n, 3 * n + 3)));
  return format === "channelsLast"
    ? oracle.permute(values, { channels: C, inner: 3 }, format)
    : Float32Array.from(values);
}

/** The six values of each channel of shape (2, C, 3). */
export function unpack(values: Float32Array, format: Format): readonly (readonly number[])[] {
  const C = values.length / 6;
  const ordered = format === "channelsLast"
    ? oracle.permute(values, { channels: C, inner: 3 }, "channelsFirst")
    : values;
  return Array.from(
    { length: C },
    (_, c) => [0, 1].flatMap((n) => [...ordered.subarray(3 * (n * C + c), 3 * (n * C + c + 1))]),
  );
}
